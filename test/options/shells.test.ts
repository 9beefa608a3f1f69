/** Tests completion scripts in their shells: words are typed, Tab is pressed, and the line is read back. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { shell } from '../../scripts/services/tools'
import { completionScript, type Shell } from '../../src/options/completions'
import { describeWith } from '../services/describe-with'
import { flags } from '../../src/options/flags'
import { fakes } from './fakes'

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-completions-'))
  mkdirSync(join(folder, 'work'))
  writeFileSync(join(folder, 'work', 'app.ndjson'), '')
})
afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

function run(name: Shell, driver: string, args: readonly string[]): readonly string[] {
  const script = join(folder, `script.${name}`)
  writeFileSync(script, completionScript(name, fakes, flags, ['help', 'ls']))
  const file = join(folder, `drive.${name}`)
  writeFileSync(file, driver)
  const { stdout, stderr } = spawnSync(
    shell(name) ?? name,
    [...(name === 'zsh' ? ['-f'] : ['--no-config']), file, script, ...args],
    {
      cwd: join(folder, 'work'),
      encoding: 'utf8',
      timeout: 20_000,
      env: { PATH: process.env['PATH'], HOME: folder, TERM: 'dumb' },
    },
  )
  expect(stderr).toBe('')
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => line.trimEnd())
}

/** In an interactive zsh. `^Xp` prints the line as it stands: that is what is waited for. */
const SET_UP = `PS1='> '
autoload -U compinit; compinit -D -u
source $SCRIPT
setopt no_beep
probe() { print -r -- "<<$BUFFER>>" }; zle -N probe; bindkey '^Xp' probe
print READY
`
/** An interactive zsh on a pseudo-terminal. Arguments: the completion script, what is typed. */
const DRIVER = `zmodload zsh/zpty
export SCRIPT=$1
zpty t zsh -f -i
zpty -w t 'source ../set-up.zsh'
zpty -r t out '*READY*'
zpty -w -n t "$2"$'\\t\\C-xp'
zpty -r t out '*<<*>>*'
out=\${out##*<<}
print -r -- "\${out%%>>*}"
zpty -d t
`

describeWith('zsh', 'completions in zsh', () => {
  test.each([
    ['a flag', 'manifold --fr', 'manifold --from '],
    ['a command', 'manifold h', 'manifold help '],
    ['a scheme', 'manifold --from - --to s3', 'manifold --from - --to s3://'],
    [
      'an option of the endpoint that is being typed',
      'manifold --from wss://h/p recon',
      'manifold --from wss://h/p reconnect-every=',
    ],
    [
      'a value',
      'manifold --from - --to s3://b/p region=x compression=z',
      'manifold --from - --to s3://b/p region=x compression=zstd ',
    ],
    ['an option of a file without a scheme', 'manifold --from a.log fo', 'manifold --from a.log follow '],
    ['a file', 'manifold --from ap', 'manifold --from app.ndjson '],
    ['a file behind its scheme', 'manifold --from file:ap', 'manifold --from file:app.ndjson '],
    [
      'nothing of an endpoint that another flag has ended',
      'manifold --from wss://h/p --quiet recon',
      'manifold --from wss://h/p --quiet recon',
    ],
  ])('%s is completed', (_, typed, expected) => {
    writeFileSync(join(folder, 'set-up.zsh'), SET_UP)
    expect(run('zsh', DRIVER, [typed])).toEqual([expected.trimEnd()])
  })
})

describeWith('fish', 'completions in fish', () => {
  test.each([
    ['manifold --fr', '--from'],
    ['manifold h', 'help'],
    ['manifold --from - --to s3', 's3://'],
    ['manifold --from wss://h/p recon', 'reconnect-every='],
    ['manifold --from - --to s3://b/p compression=z', 'compression=zstd'],
    ['manifold --from a.log fo', 'follow'],
  ])('%s is completed', (typed, expected) => {
    const lines = run('fish', 'source $argv[1]\ncomplete -C $argv[2]\n', [typed])
    expect(lines.map((line) => line.split('\t')[0])).toEqual([expected])
  })
})
