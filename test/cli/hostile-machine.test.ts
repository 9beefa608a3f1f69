/**
 * Tests a machine that lacks or refuses something: one line and an exit code tell it. It is never reported as a bug,
 * and the process never spins.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { cleanEnv, LAUNCHER } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-surroundings-'))
  chmodSync(folder, 0o755)
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

interface Ran {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

/** As a shell script in which `$M` is the program. */
function shell(script: string): Ran {
  const options = { cwd: folder, encoding: 'utf8', timeout: 20_000, env: cleanEnv({ M: LAUNCHER }) } as const
  const { status, stdout, stderr } = spawnSync('bash', ['-c', script], options)
  // The launcher's shell may say so as well.
  return { code: status, out: stdout, err: stderr.replace(/^(sh|shell-init).*getcwd.*\n/gm, '') }
}

describe('a working directory that was removed', () => {
  const from = (line: string): Ran =>
    shell(`mkdir gone; cd gone; rmdir ../gone; $M --from generate: count=2 size=20 ${line}`)

  it('does not matter to a line without relative paths', () => {
    expect(from('--to -')).toMatchObject({ code: 0, err: '' })
    expect(from(`--to file:${folder}/out --state ${folder}/state`)).toMatchObject({ code: 0, err: '' })
    expect(readFileSync(join(folder, 'out'), 'utf8').split('\n')).toHaveLength(3)
  })
  it.each(['--to file:out', `--to discard: --name x --state state`])(
    'is named where a path depends on it: %s',
    (line) => {
      expect(from(line)).toMatchObject({
        code: 2,
        out: '',
        err: 'manifold: the working directory is gone: change to another one, or give absolute paths\n',
      })
    },
  )
})

const inProc = existsSync('/proc/self') ? it : it.skip
describe('a folder in which none can be made', () => {
  inProc.each([
    [
      '--state /proc/x --to file:out',
      2,
      /^manifold: cannot use the state folder \/proc\/x: .*; name another with --state\n$/,
    ],
    ['--state state --spool /proc/x --to discard:', 2, /^manifold: cannot use the folder \/proc\/x: .*\n$/],
    ['--state state --to file:/proc/x/y', 4, /\/proc\/x\/y cannot be created/],
  ])('ends the run at once: %s', (line, code, says) => {
    const ran = shell(`$M --from generate: count=2 ${line}`)
    expect({ code: ran.code, err: ran.err }).toEqual({ code, err: expect.stringMatching(says) as string })
  })
})

const NOBODY = ['setpriv', '--reuid', '54321', '--clear-groups']
/** Root alone can become another user, who has to be able to read the program. */
function canBeNobody(): boolean {
  return (
    process.getuid?.() === 0 && spawnSync(NOBODY[0] ?? '', [...NOBODY.slice(1), 'test', '-r', LAUNCHER]).status === 0
  )
}
const asRoot = canBeNobody() ? it : it.skip
describe('a user without home folder and passwd entry', () => {
  const nobody = `${NOBODY.join(' ')} env -u HOME -u XDG_STATE_HOME`

  asRoot.each(['--from generate: count=2 --to file:/tmp/never --name x', 'ls'])(
    'is told to name a folder for state: %s',
    (line) => {
      const ran = shell(`${nobody} $M ${line}`)
      const says = /^manifold: no home folder is known \(.*\): name a folder for state with --state\n$/
      expect({ code: ran.code, err: ran.err }).toEqual({ code: 2, err: expect.stringMatching(says) as string })
    },
  )
  asRoot('runs what keeps no state', () => {
    expect(shell(`${nobody} $M --from generate: count=2 size=20 --to -`)).toMatchObject({ code: 0, err: '' })
  })
  asRoot('is told of an output it may not look at', () => {
    mkdirSync(join(folder, 'closed'), { mode: 0o700 })
    const ran = shell(`${nobody} $M --from generate: count=2 --to file:${folder}/closed/out --state ${folder}/state`)
    expect({ code: ran.code, bug: /a bug/.test(ran.err), lines: ran.err.split('\n').length }).toEqual({
      code: 2,
      bug: false,
      lines: 2,
    })
  })
})
