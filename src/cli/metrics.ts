/**
 * Serves Prometheus metrics, health and status over HTTP or a unix socket, or writes metrics to a file for the textfile
 * collector of the node exporter.
 */
import type { Stats } from 'node:fs'
import { lstat, rename, unlink, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import { connect, isIPv4 } from 'node:net'
import { hostname } from 'node:os'
import type { Log } from '../core/contract'
import { UsageError, lineOf } from '../core/errors'
import type { FlowStatus } from '../core/flow/status'
import type { MetricsTarget } from '../options/flags'
import { renderer } from './metrics-text'

/** The file is written at this interval. */
const FILE_EVERY_MS = 15_000
/** The flow itself needs descriptors more than its observers do. */
const MAX_CONNECTIONS = 16
/** A connection may take this long for a request, and is kept this long for the next one. */
const REQUEST_TIMEOUT_MS = 5000
const KEEP_ALIVE_MS = 1000

/** @throws UsageError if metrics cannot be served or written there */
export async function serveMetrics(
  where: MetricsTarget,
  status: () => FlowStatus,
  log: Log,
): Promise<{ close(): Promise<void> }> {
  const render = renderer(status)
  if (where.kind === 'file') return writeToFile(where.path, render, log)
  const isOurs = hostCheck(where.kind === 'tcp' ? where.host : undefined)
  const server = createServer(
    {
      headersTimeout: REQUEST_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      connectionsCheckingInterval: KEEP_ALIVE_MS,
    },
    (request, response) => {
      const path = (request.url ?? '/').split('?')[0]
      const answer = (code: number, type: string, body: string): void => {
        response.writeHead(code, { 'content-type': type }).end(body)
      }
      if (!isOurs(request))
        answer(
          421,
          'text/plain',
          'this is not the host that was asked for: name localhost, an address, or the host of --metrics\n',
        )
      else if (path === '/metrics')
        render().then(
          (text) => {
            answer(200, 'text/plain; version=0.0.4; charset=utf-8', text)
          },
          (error: unknown) => {
            answer(500, 'text/plain', lineOf(error))
          },
        )
      else if (path === '/healthz') answer(200, 'text/plain', 'ok\n')
      else if (path === '/readyz')
        answer(ready(status()) ? 200 : 503, 'text/plain', ready(status()) ? 'ready\n' : 'an endpoint is not running\n')
      else if (path === '/status') answer(200, 'application/json', `${JSON.stringify(status())}\n`)
      else answer(404, 'text/plain', 'there is /metrics, /healthz, /readyz and /status\n')
    },
  )
  server.maxConnections = MAX_CONNECTIONS
  await listen(server, where)
  // A connection may not be accepted, for example for lack of descriptors. The client tries again, and the flow goes
  // on.
  server.on('error', (error) => {
    log.debug(`metrics: ${lineOf(error)}`)
  })
  server.unref()
  const made = where.kind === 'unix' ? await lstat(where.path) : undefined
  return {
    close: async () => {
      server.closeAllConnections()
      // Closing removes the socket at the path, which may belong to another process by now. It then stays, and the
      // server ends with the process.
      if (where.kind === 'unix' && made !== undefined && !(await isSameFile(where.path, made))) return
      await new Promise((resolve) => {
        server.close(resolve)
      })
    },
  }
}

/**
 * A web page whose name resolves to this machine (DNS rebinding) must not read the status. So requests over loopback
 * are answered only if their host is known to be this machine.
 */
function hostCheck(configured: string | undefined): (request: IncomingMessage) => boolean {
  const names = new Set(['localhost', hostname().toLowerCase(), configured?.toLowerCase()])
  return ({ headers: { host }, socket: { localAddress } }) => {
    if (configured === undefined || host === undefined || !isLoopback(localAddress ?? '')) return true
    const name =
      (/^(?:\[([^\]]*)\]|([^:]*))(?::\d+)?$/.exec(host.toLowerCase()) ?? [])
        .slice(1)
        .find((part) => part !== undefined) ?? ''
    return names.has(name) || name.endsWith('.localhost') || isLoopback(name)
  }
}

function isLoopback(address: string): boolean {
  const plain = address.replace(/^::ffff:/i, '')
  return plain === '::1' || (isIPv4(plain) && plain.startsWith('127.'))
}

async function isSameFile(path: string, made: Stats): Promise<boolean> {
  const there = await lstat(path).catch(() => undefined)
  return there === undefined || (there.ino === made.ino && there.dev === made.dev)
}

function ready(status: FlowStatus): boolean {
  return [...status.sources, ...status.sinks].every(
    ({ state }) => state === 'running' || state === 'draining' || state === 'stopped',
  )
}

async function listen(server: Server, where: Exclude<MetricsTarget, { kind: 'file' }>): Promise<void> {
  const at = where.kind === 'unix' ? { path: where.path } : { host: where.host, port: where.port }
  const attempt = (): Promise<void> =>
    new Promise((resolve, reject) => {
      server.once('error', reject)
      server.listen(at, () => {
        server.off('error', reject)
        resolve()
      })
    })
  try {
    await attempt().catch(async (error: unknown) => {
      if (where.kind !== 'unix' || (error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
      if (!(await lstat(where.path)).isSocket())
        throw new Error(`${where.path} is there and is no socket: name another path, or move it away`, { cause: error })
      // A killed run leaves its socket behind. If nobody answers there, it is removed.
      if (await isServed(where.path)) throw error
      await unlink(where.path)
      await attempt()
    })
  } catch (error) {
    throw new UsageError([`--metrics: ${lineOf(error)}`])
  }
}

function isServed(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code !== 'ECONNREFUSED')
    })
  })
}

/** The file is renamed into place, so that no reader sees half of it. */
async function writeToFile(path: string, render: () => Promise<string>, log: Log): Promise<{ close(): Promise<void> }> {
  const write = async (): Promise<void> => {
    await writeFile(`${path}.tmp`, await render())
    await rename(`${path}.tmp`, path)
  }
  try {
    await write()
  } catch (error) {
    throw new UsageError([`--metrics file:${path} cannot be written: ${lineOf(error)}`])
  }
  const rewrite = (): Promise<void> =>
    write().catch((error: unknown) => {
      log.warn(`metrics could not be written to ${path}: ${lineOf(error)}`)
    })
  const timer = setInterval(() => {
    void rewrite()
  }, FILE_EVERY_MS)
  return {
    close: async () => {
      clearInterval(timer)
      await rewrite()
    },
  }
}
