/** Tests files that the system generates as they are read: they have content, but no size. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { start } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-unsized-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})
const onLinux = existsSync('/proc/self') ? test : test.skip

onLinux.each(['/proc/sys/kernel/ostype', '/proc/version', '/proc/devices'])(
  '%s is read once to its end, as cat does',
  async (path) => {
    // Output is in no file, so that a run that does not end fills no disk.
    const run = start(['--from', `file:${path}`, '--to', '-', '--state', 'state'], { cwd: folder })
    const late = setTimeout(() => {
      run.kill('SIGKILL')
    }, 8000)
    const { code, stdout } = await run.done
    clearTimeout(late)
    expect({ code, text: stdout.toString().slice(0, 2000) }).toEqual({
      code: 0,
      text: readFileSync(path, 'utf8').slice(0, 2000),
    })
    expect(stdout.length).toBe(readFileSync(path).length)
  },
)
