/** Tests how a run ends by signals: drained, cut short, or at once. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { httpGet } from '../support/http'
import { start, type Running } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-signals-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

/** Until it has read something: its handlers are in place then, and records are on their way. */
async function reading(args: readonly string[]): Promise<Running> {
  const socket = join(folder, 'metrics')
  const running = start([...args, '--metrics', `unix:${socket}`, '--receipt', join(folder, 'receipt')])
  for (let read = 0; read === 0 && running.child.exitCode === null; ) {
    await new Promise((resolve) => {
      setTimeout(resolve, 20)
    })
    const status = await httpGet(socket, '/status')
    read = status === undefined ? 0 : (JSON.parse(status.body) as { read: number }).read
  }
  return running
}
/** A sink that takes for ever to answer. */
const HANGING = ['--from', 'generate:', 'rate=1000', '--to', 'discard:', 'delay=1h']

test.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)(
  '%s stops reading, delivers what was read, and ends with 0',
  async (signal) => {
    const running = await reading([
      '--from',
      'generate:',
      'rate=1000',
      '--to',
      `file:${join(folder, 'out')}`,
      '--state',
      join(folder, 'state'),
    ])
    running.kill(signal)
    const { code, signal: by } = await running.done
    expect({ code, by }).toEqual({ code: 0, by: null })
    const receipt = JSON.parse(readFileSync(join(folder, 'receipt'), 'utf8')) as {
      readonly outcome: string
      readonly sinks: { readonly read: number; readonly delivered: number }[]
    }
    expect(receipt.outcome).toBe('stopped')
    expect(receipt.sinks[0]?.delivered).toBe(receipt.sinks[0]?.read)
    expect(readFileSync(join(folder, 'out'), 'utf8').trimEnd().split('\n')).toHaveLength(receipt.sinks[0]?.read ?? 0)
  },
)

test('a drain that outlasts the grace ends by the signal, within half a second, and says what was not delivered', async () => {
  const running = await reading([...HANGING, '--grace', '500ms'])
  const from = Date.now()
  running.kill('SIGTERM')
  const { signal, stderr } = await running.done
  expect(signal).toBe('SIGTERM')
  expect(Date.now() - from).toBeGreaterThanOrEqual(490)
  expect(Date.now() - from).toBeLessThan(1000)
  expect(stderr).toMatch(/cut short: \d+ records of \d+ were not delivered to discard/)
})

test('a second signal ends the drain at once, by that signal', async () => {
  const running = await reading([...HANGING, '--grace', '1h'])
  const from = Date.now()
  running.kill('SIGINT')
  while (!running.stderr().includes('SIGINT: stopping'))
    await new Promise((resolve) => {
      setTimeout(resolve, 5)
    })
  running.kill('SIGTERM')
  const { signal, stderr } = await running.done
  expect(signal).toMatch(/^SIG(INT|TERM)$/)
  expect(stderr).toMatch(/SIGTERM again: cut short/)
  expect(Date.now() - from).toBeLessThan(2000)
})
