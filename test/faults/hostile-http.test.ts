/**
 * A server whose answers do not end: what is kept of them is bounded, and the exit code is that of the error. Memory is
 * that of the whole process.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { serveHttp, type LocalServer } from '../support/http'
import { start } from '../support/manifold'

const MIB = 1024 * 1024
const BODY = 400 * MIB
const MOST_MEMORY = 300 * MIB

let folder: string
let server: LocalServer | undefined
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-hostile-'))
})
afterEach(async () => {
  await server?.stop()
  server = undefined
})
afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

/** As fast as it is read, until nobody reads any more. */
function flood(response: ServerResponse, begin: string, unit: string): void {
  const block = Buffer.from(unit.repeat(Math.ceil(MIB / unit.length)))
  let left = BODY
  const more = (): void => {
    while (left > 0 && !response.destroyed) {
      left -= block.length
      if (!response.write(block)) {
        response.once('drain', more)
        return
      }
    }
    response.end()
  }
  response.on('error', () => undefined)
  response.write(begin)
  more()
}

async function run(
  args: readonly string[],
): Promise<{ readonly code: number | null; readonly stderr: string; readonly memory: number }> {
  const running = start([...args, '--state', join(folder, String(Math.random()))], {
    env: { AWS_ACCESS_KEY_ID: 'a', AWS_SECRET_ACCESS_KEY: 'b', NO_PROXY: '*' },
    input: 'a\n',
  })
  let memory = 0
  const watch = setInterval(() => {
    // It may be gone already.
    try {
      memory = Math.max(
        memory,
        Number(/VmHWM:\s*(\d+)/.exec(readFileSync(`/proc/${running.pid}/status`, 'utf8'))?.[1] ?? 0) * 1024,
      )
    } catch {
      clearInterval(watch)
    }
  }, 5)
  try {
    const { code, stderr } = await running.done
    return { code, stderr, memory }
  } finally {
    clearInterval(watch)
  }
}
const XML = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>'

test.each<[string, number, Record<string, string>, string, RegExp]>([
  [
    'an error of S3',
    403,
    { 'content-type': 'application/xml' },
    XML,
    /denies it to store .*AccessDenied: its text is longer than 64 ?KiB/,
  ],
  ['an error without a code', 403, { 'content-type': 'text/html' }, '<html>', /denies it to store/],
  [
    'an error of a length that is told',
    403,
    { 'content-type': 'application/xml', 'content-length': String(BODY + XML.length) },
    XML,
    /denies it to store .*AccessDenied/,
  ],
])(
  '%s',
  async (_, status, headers, begin, message) => {
    server = await serveHttp((request, response) => {
      request.resume()
      request.on('end', () => {
        if (request.method === 'HEAD') {
          response.end()
          return
        }
        response.writeHead(status, headers)
        flood(response, begin, 'x')
      })
    })
    const { code, stderr, memory } = await run([
      '--from',
      '-',
      '--to',
      's3://lake/t',
      `endpoint=${server.endpoint}`,
      'region=us-east-1',
    ])
    expect(stderr).toMatch(message)
    expect(code).toBe(4)
    expect(memory).toBeLessThan(MOST_MEMORY)
    expect(memory).toBeGreaterThan(MIB)
  },
  60_000,
)

test.each<[string, number, string, string, RegExp]>([
  ['an error of Kinesis', 400, '{"__type":"AccessDeniedException","message":"', 'x', /AccessDeniedException/],
  [
    'a success that Kinesis never gives',
    200,
    '{"StreamDescriptionSummary":"',
    'x',
    /an answer of more than the 64 ?MiB that are taken/,
  ],
])(
  '%s',
  async (_, status, begin, unit, message) => {
    server = await serveHttp((request, response) => {
      request.resume()
      request.on('end', () => {
        response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' })
        flood(response, begin, unit)
      })
    })
    const { code, stderr, memory } = await run([
      '--from',
      '-',
      '--to',
      'kinesis:s',
      `endpoint=${server.endpoint}`,
      'region=us-east-1',
      '--give-up-after',
      'first',
    ])
    expect(stderr).toMatch(message)
    expect(code).toBe(4)
    expect(memory).toBeLessThan(MOST_MEMORY)
  },
  60_000,
)

test('the answer of a WebSocket server to the handshake', async () => {
  const peer = createServer()
  peer.on('upgrade', (_request, socket) => {
    socket.on('error', () => undefined)
    socket.write('HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n')
    const block = Buffer.alloc(MIB)
    let left = BODY / MIB
    const more = (): void => {
      while (left-- > 0 && !socket.destroyed)
        if (!socket.write(block)) {
          socket.once('drain', more)
          return
        }
    }
    more()
  })
  await new Promise<void>((resolve) => {
    peer.listen(0, '127.0.0.1', resolve)
  })
  try {
    const { code, stderr, memory } = await run([
      '--from',
      `ws://127.0.0.1:${(peer.address() as { port: number }).port}/`,
      '--to',
      '-',
    ])
    expect(stderr).toMatch(/answered 403/)
    expect(code).toBe(3)
    expect(memory).toBeLessThan(MOST_MEMORY)
  } finally {
    peer.closeAllConnections()
    peer.close()
  }
}, 60_000)
