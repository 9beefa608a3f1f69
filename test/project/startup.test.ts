/** What it costs to start it, and to let it wait. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { cleanEnv, LAUNCHER, start } from '../support/manifold'

/** Processor time of ten runs, seconds: unlike the time that passes, it is the same whatever else the machine does. */
function cost(file: string, args: readonly string[]): number {
  const { status, stdout } = spawnSync(
    'bash',
    ['-c', 'for i in 1 2 3 4 5 6 7 8 9 10; do "$@" > /dev/null || exit 1; done; times', 'bash', file, ...args],
    { env: cleanEnv({ LC_ALL: 'C' }), encoding: 'utf8' },
  )
  expect(status).toBe(0)
  // Of the shell, then of what it started: 0m0.234s 0m0.145s.
  const spent = [...(stdout.trim().split('\n').at(-1) ?? '').matchAll(/(\d+)m([\d.]+)s/g)].map(
    ([, minutes, seconds]) => Number(minutes) * 60 + Number(seconds),
  )
  expect(spent).toHaveLength(2)
  return (spent[0] ?? 0) + (spent[1] ?? 0)
}

// Both cost up to one and a half times as much, beside other work as well.
test.each([
  ['--version', 2],
  ['help', 2],
  ['completions bash', 2],
] as const)(
  '%s costs less than %d times what an empty Node does',
  (words, most) => {
    // Whoever shares the processor's caches makes both dearer, but never all the time: the best of each is compared.
    let [bare, ours] = [Infinity, Infinity]
    for (let round = 1; round <= 8 && !(ours / bare < most); round++) {
      bare = Math.min(bare, cost(process.execPath, ['-e', '0']))
      ours = Math.min(ours, cost(LAUNCHER, words.split(' ')))
    }
    expect(bare).toBeGreaterThan(0.05)
    expect(ours / bare).toBeLessThan(most)
  },
  120_000,
)

const linux = process.platform === 'linux'
;(linux ? test : test.skip)('from stdin to stdout, waiting, it needs less than 90 MiB', async () => {
  const running = start(['--from', '-', '--to', '-'], { input: 'open' })
  running.child.stdin?.write('one\n')
  await new Promise((resolve) => {
    running.child.stdout?.once('data', resolve)
  })
  const kib = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${running.pid}/status`, 'utf8'))?.[1])
  running.child.stdin?.end()
  expect((await running.done).code).toBe(0)
  expect(kib).toBeGreaterThan(20 * 1024)
  expect(kib).toBeLessThan(90 * 1024)
})
