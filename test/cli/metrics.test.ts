/** Tests the pages of `--metrics`: their counts are those of the receipt, and requests do not disturb the flow. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import * as http from 'node:http'
import * as net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Receipt } from '../../src/core/accounting/receipt'
import type { FlowStatus } from '../../src/core/flow/status'
import { LAUNCHER, cleanEnv, manifold, start } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-metrics-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

interface Page {
  readonly code: number
  readonly body: string
}
/** undefined: nobody answers yet. */
function get(at: http.RequestOptions, path: string): Promise<Page | undefined> {
  return new Promise((resolve) => {
    http
      .get({ ...at, path, agent: false }, (response) => {
        let body = ''
        response.on('data', (chunk: Buffer) => {
          body += chunk.toString()
        })
        response.on('end', () => {
          resolve({ code: response.statusCode ?? 0, body })
        })
        response.on('error', () => {
          resolve(undefined)
        })
      })
      .on('error', () => {
        resolve(undefined)
      })
  })
}
async function until<T>(look: () => Promise<T | undefined> | T | undefined, ms = 15_000): Promise<T> {
  for (const end = Date.now() + ms; Date.now() < end; ) {
    const found = await look()
    if (found !== undefined) return found
    await new Promise((resolve) => {
      setTimeout(resolve, 20)
    })
  }
  throw new Error('waited in vain')
}
async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  await new Promise((resolve) => {
    server.close(resolve)
  })
  return port
}
const receipt = (): Receipt =>
  JSON.parse(readFileSync(join(folder, 'receipt'), 'utf8').trimEnd().split('\n').at(-1) ?? '') as Receipt

/** Our counters, by name and sink; that a counter is called and typed one is checked on the way. */
function countersOf(text: string): Map<string, number> {
  const types = new Map(
    [...text.matchAll(/^# TYPE (manifold_\S+) (\S+)$/gm)].map(([, name = '', type = '']) => [name, type]),
  )
  for (const [name, type] of types) expect([name, type]).toEqual([name, name.endsWith('_total') ? 'counter' : 'gauge'])
  return new Map(
    [...text.matchAll(/^(manifold_\w+_total)\{flow="[^"]+"(?:,sink="[^"]+")?\} (\d+)$/gm)].map(
      ([, name = '', value]) => [name, Number(value)],
    ),
  )
}
function countersBy({ read, bytesRead, gapCount, restarts, sinks: [sink] }: Receipt): Map<string, number> {
  if (sink === undefined) throw new Error('no sink')
  return new Map(
    Object.entries({
      records_read: read,
      bytes_read: bytesRead,
      gaps: gapCount,
      restarts,
      records_carried_in: sink.carriedIn,
      records_delivered: sink.delivered,
      bytes_delivered: sink.bytes,
      records_rejected: sink.rejected,
      records_dropped: sink.dropped,
      records_filtered: sink.filtered,
      records_returned: sink.returned,
      records_abandoned: sink.abandoned,
      possible_duplicates: sink.possibleDuplicates,
    }).map(([name, value]) => [`manifold_${name}_total`, value]),
  )
}
const ENVELOPES = ['{"value":"one"}', 'not an envelope', '{"value":"two"}', '{"value":3}', '{"value":"three"}']
  .map((line) => `${line}\n`)
  .join('')

test.each([
  ['behind a spool', ['--spool']],
  ['without one', []],
])(
  "every counter of a scrape in a quiet moment, and of the file after the end, is the receipt's: %s",
  async (_, more) => {
    const line = [
      '--from',
      '-',
      'framing=envelope',
      '--to',
      join(folder, 'out'),
      '--name',
      'counted',
      '--state',
      join(folder, 'state'),
      '--receipt',
      join(folder, 'receipt'),
      ...(more.length === 0 ? [] : ['--spool', join(folder, 'spool')]),
    ]
    const socket = join(folder, 'socket')
    const running = start([...line, '--metrics', `unix:${socket}`], { input: 'open' })
    running.child.stdin?.write(ENVELOPES)
    const status = await until(async () => {
      const page = await get({ socketPath: socket }, '/status')
      const now = page === undefined ? undefined : (JSON.parse(page.body) as FlowStatus)
      return now?.sinks[0]?.delivered === 3 && now.sinks[0].pending === 0 ? now : undefined
    })
    const scraped = countersOf((await get({ socketPath: socket }, '/metrics'))?.body ?? '')
    running.child.stdin?.end()
    expect((await running.done).code).toBe(5)
    expect(receipt().sinks[0]).toMatchObject({ read: 5, delivered: 3, rejected: 2 })
    expect(scraped).toEqual(countersBy(receipt()))
    expect(status.sinks[0]).toMatchObject({ delivered: 3, rejected: 2 })

    const rewrite = await manifold([...line, '--metrics', `file:${join(folder, 'm.prom')}`], { input: ENVELOPES })
    expect(rewrite.code).toBe(5)
    expect(countersOf(readFileSync(join(folder, 'm.prom'), 'utf8'))).toEqual(countersBy(receipt()))
  },
  30_000,
)

test('unix:PATH takes nothing away that is no dead socket, neither at the start nor at the end', async () => {
  const path = join(folder, 'precious')
  writeFileSync(path, 'data')
  const refused = await manifold(['--from', 'generate:', 'count=1', '--to', 'discard:', '--metrics', `unix:${path}`])
  expect({ code: refused.code, stderr: refused.stderr }).toEqual({
    code: 2,
    stderr: expect.stringContaining('is no socket') as string,
  })
  expect(readFileSync(path, 'utf8')).toBe('data')

  const socket = join(folder, 'socket')
  const running = start(['--from', '-', '--to', 'discard:', '--metrics', `unix:${socket}`], { input: 'open' })
  await until(() => get({ socketPath: socket }, '/healthz'))
  rmSync(socket)
  writeFileSync(socket, 'of somebody else')
  running.child.stdin?.end()
  expect((await running.done).code).toBe(0)
  expect(readFileSync(socket, 'utf8')).toBe('of somebody else')
}, 30_000)

test('over loopback only names of this machine are answered to', async () => {
  const port = await freePort()
  const running = start(['--from', '-', '--to', 'discard:', '--metrics', `:${port}`], { input: 'open' })
  const at = { host: '127.0.0.1', port }
  await until(() => get(at, '/healthz'))
  for (const path of ['/metrics', '/status', '/healthz', '/readyz']) {
    for (const host of [
      'evil.example',
      `evil.example:${port}`,
      'localhost.evil.example',
      '127.0.0.1.evil.example',
      '[::1].evil.example',
    ]) {
      const page = await get({ ...at, headers: { host } }, path)
      expect({ host, path, code: page?.code, told: /manifold_|discard|^ok|ready/.test(page?.body ?? '') }).toEqual({
        host,
        path,
        code: 421,
        told: false,
      })
    }
    for (const host of ['localhost', `LOCALHOST:${port}`, '127.0.0.1', `127.0.0.1:${port}`, `[::1]:${port}`])
      expect((await get({ ...at, headers: { host } }, path))?.code).toBe(200)
  }
  running.child.stdin?.end()
  expect((await running.done).code).toBe(0)
}, 30_000)

test('more connections than descriptors take nothing from the flow', async () => {
  const port = await freePort()
  const out = join(folder, 'out')
  const child = spawn(
    'bash',
    [
      '-c',
      `ulimit -n 256; exec "${LAUNCHER}" --quiet --from generate: rate=500 --to "${out}" rotate-size=20KiB --name many --state "${join(folder, 'state')}" --metrics 127.0.0.1:${port}`,
    ],
    { env: cleanEnv(), stdio: ['ignore', 'ignore', 'pipe'] },
  )
  let stderr = ''
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString()
  })
  const done = once(child, 'close')
  const at = { host: '127.0.0.1', port }
  const read = async (): Promise<number | undefined> => {
    const page = await get(at, '/status')
    return page?.code === 200 ? (JSON.parse(page.body) as FlowStatus).sinks[0]?.delivered : undefined
  }
  try {
    await until(read)
    const sockets = Array.from({ length: 556 }, () => net.connect(at).on('error', () => undefined))
    await Promise.all(sockets.map((socket) => Promise.race([once(socket, 'connect'), once(socket, 'close')])))
    // A silent connection is closed after a few seconds, so that others are served.
    const delivered = await until(read, 20_000)
    for (const socket of sockets) socket.destroy()
    await until(async () => (((await read()) ?? 0) > delivered + 500 ? true : undefined))
    child.kill('SIGTERM')
    expect([(await done)[0], stderr]).toEqual([0, ''])
  } finally {
    child.kill('SIGKILL')
  }
}, 60_000)
