/** Prometheus metrics, health and status over HTTP or a unix socket, or as a file for the node exporter's textfile collector. */
import { rename, unlink, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { connect } from 'node:net'
import { collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { Log } from '../core/contract'
import { UsageError, lineOf } from '../core/errors'
import type { EndpointState, FlowStatus } from '../core/status'
import type { MetricsPlace } from '../options/flags'

/** How often the file is written, milliseconds. */
const FILE_EVERY = 15_000
const STATES: readonly EndpointState[] = ['opening', 'running', 'backing off', 'draining', 'stopped', 'failed']

/** @throws UsageError it cannot be served or written there */
export async function serveMetrics(where: MetricsPlace, status: () => FlowStatus, log: Log): Promise<{ close(): Promise<void> }> {
  const render = renderer(status)
  if (where.kind === 'file') return toFile(where.path, render, log)
  const server = createServer((request, response) => {
    const path = (request.url ?? '/').split('?')[0]
    const answer = (code: number, type: string, body: string): void => { response.writeHead(code, { 'content-type': type }).end(body) }
    if (path === '/metrics') render().then((text) => { answer(200, 'text/plain; version=0.0.4; charset=utf-8', text) }, (error: unknown) => { answer(500, 'text/plain', lineOf(error)) })
    else if (path === '/healthz') answer(200, 'text/plain', 'ok\n')
    else if (path === '/readyz') answer(ready(status()) ? 200 : 503, 'text/plain', ready(status()) ? 'ready\n' : 'an endpoint is not running\n')
    else if (path === '/status') answer(200, 'application/json', `${JSON.stringify(status())}\n`)
    else answer(404, 'text/plain', 'there is /metrics, /healthz, /readyz and /status\n')
  })
  await listen(server, where)
  server.unref()
  return { close: () => new Promise((resolve) => { server.closeAllConnections(); server.close(() => { resolve() }) }) }
}

function ready(status: FlowStatus): boolean { return [...status.sources, ...status.sinks].every(({ state }) => state === 'running' || state === 'draining' || state === 'stopped') }

async function listen(server: Server, where: Exclude<MetricsPlace, { kind: 'file' }>): Promise<void> {
  const at = where.kind === 'unix' ? { path: where.path } : { host: where.host, port: where.port }
  const attempt = (): Promise<void> => new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(at, () => { server.off('error', reject); resolve() })
  })
  try {
    await attempt().catch(async (error: unknown) => {
      // A killed run leaves its socket behind; where nobody answers, nobody needs it.
      if (where.kind !== 'unix' || (error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || await answers(where.path)) throw error
      await unlink(where.path)
      await attempt()
    })
  } catch (error) { throw new UsageError([`--metrics: ${lineOf(error)}`]) }
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => { socket.destroy(); resolve(true) })
    socket.on('error', (error: NodeJS.ErrnoException) => { resolve(error.code !== 'ECONNREFUSED') })
  })
}

/** Renamed into place, for whoever reads it must not see half of it. */
async function toFile(path: string, render: () => Promise<string>, log: Log): Promise<{ close(): Promise<void> }> {
  const write = async (): Promise<void> => {
    await writeFile(`${path}.tmp`, await render())
    await rename(`${path}.tmp`, path)
  }
  try { await write() } catch (error) { throw new UsageError([`--metrics file:${path} cannot be written: ${lineOf(error)}`]) }
  const again = (): Promise<void> => write().catch((error: unknown) => { log.warn(`metrics could not be written to ${path}: ${lineOf(error)}`) })
  const timer = setInterval(() => { void again() }, FILE_EVERY)
  return { close: async () => { clearInterval(timer); await again() } }
}

function renderer(status: () => FlowStatus): () => Promise<string> {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const gauge = (name: string, help: string, labelNames: string[]): Gauge => new Gauge({ name: `manifold_${name}`, help, labelNames, registers: [registry] })
  const read = gauge('records_read_total', 'Records read from all sources.', ['flow'])
  const bytes = gauge('bytes_read_total', 'Bytes read from all sources.', ['flow'])
  const gaps = gauge('gaps_total', 'Gaps: records that nobody can deliver.', ['flow'])
  const delivered = gauge('records_delivered_total', 'Records that a sink confirmed.', ['flow', 'sink'])
  const rejected = gauge('records_rejected_total', 'Records that became dead letters.', ['flow', 'sink'])
  const pending = gauge('records_pending', 'Records on their way to a sink.', ['flow', 'sink'])
  const spool = gauge('spool_bytes', 'Bytes of the spool on disk.', ['flow'])
  const full = gauge('spool_full', '1 while the spool waits for space.', ['flow'])
  const state = gauge('endpoint_state', '1 for the state an endpoint is in.', ['flow', 'endpoint', 'role', 'state'])
  const own = gauge('endpoint', 'What an endpoint tells of itself, lag per partition among it.', ['flow', 'endpoint', 'name'])
  return () => {
    const now = status()
    const flow = now.name
    read.set({ flow }, now.read)
    bytes.set({ flow }, now.bytesRead)
    gaps.set({ flow }, now.gaps)
    for (const sink of now.sinks) {
      delivered.set({ flow, sink: sink.label }, sink.delivered)
      rejected.set({ flow, sink: sink.label }, sink.rejected)
      pending.set({ flow, sink: sink.label }, sink.pending)
    }
    if (now.spool !== undefined) {
      spool.set({ flow }, now.spool.bytes)
      full.set({ flow }, now.spool.full ? 1 : 0)
    }
    for (const endpoint of [...now.sources, ...now.sinks]) {
      for (const each of STATES) state.set({ flow, endpoint: endpoint.label, role: endpoint.role, state: each }, endpoint.state === each ? 1 : 0)
      for (const [name, value] of Object.entries(endpoint.gauges)) own.set({ flow, endpoint: endpoint.label, name }, value)
    }
    return registry.metrics()
  }
}
