/** Renders the status of a flow in the text format of Prometheus. */
import { collectDefaultMetrics, Counter, Gauge, Registry, type CounterConfiguration } from '@prometheus-io/client'
import type { EndpointState, FlowStatus } from '../core/flow/status'

const STATES: readonly EndpointState[] = ['opening', 'running', 'backing off', 'draining', 'stopped', 'failed']

/** These counters of a sink are those of the receipt. */
const OF_SINKS = {
  records_carried_in_total: ['carriedIn', 'Records that an earlier run had accepted and left to be delivered.'],
  records_delivered_total: ['delivered', 'Records that a sink confirmed.'],
  bytes_delivered_total: ['bytes', 'Bytes that a sink confirmed.'],
  records_rejected_total: ['rejected', 'Records that became dead letters, those that could not be read among them.'],
  records_dropped_total: ['dropped', 'Records that could not be delivered and were dropped, as asked.'],
  records_filtered_total: ['filtered', 'Records that an option of their source left out.'],
  records_returned_total: ['returned', 'Records that their source sends again.'],
  records_abandoned_total: ['abandoned', 'Records that nobody can deliver any more.'],
  possible_duplicates_total: ['possibleDuplicates', 'Records that a sink may have twice.'],
} as const

export function renderer(status: () => FlowStatus): () => Promise<string> {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const facts = (name: string, help: string, labelNames: string[]): CounterConfiguration<string> => ({
    name: `manifold_${name}`,
    help,
    labelNames,
    registers: [registry],
  })
  const gauge = (name: string, help: string, labelNames: string[]): Gauge<string> =>
    new Gauge<string>(facts(name, help, labelNames))
  // The ledger counts. These counters only show its values.
  const counters: Counter<string>[] = []
  const counter = (name: string, help: string, labelNames: string[]): Counter<string> => {
    const made = new Counter<string>(facts(name, help, labelNames))
    counters.push(made)
    return made
  }
  const read = counter('records_read_total', 'Records read from all sources.', ['flow'])
  const bytes = counter('bytes_read_total', 'Bytes read from all sources.', ['flow'])
  const gaps = counter('gaps_total', 'Gaps: records that nobody can deliver.', ['flow'])
  const restarts = counter('restarts_total', 'Starts of this flow after its first.', ['flow'])
  const ofSinks = Object.entries(OF_SINKS).map(([name, [key, help]]) => ({
    key,
    shown: counter(name, help, ['flow', 'sink']),
  }))
  const pending = gauge('records_pending', 'Records on their way to a sink.', ['flow', 'sink'])
  const spool = gauge('spool_bytes', 'Bytes of the spool on disk.', ['flow'])
  const full = gauge('spool_full', '1 while the spool waits for space.', ['flow'])
  const state = gauge('endpoint_state', '1 for the state an endpoint is in.', ['flow', 'endpoint', 'role', 'state'])
  const own = gauge('endpoint', 'What an endpoint tells of itself, lag per partition among it.', [
    'flow',
    'endpoint',
    'name',
  ])
  return () => {
    const now = status()
    const flow = now.name
    for (const each of counters) each.reset()
    read.inc({ flow }, now.read)
    bytes.inc({ flow }, now.bytesRead)
    gaps.inc({ flow }, now.gaps)
    restarts.inc({ flow }, now.restarts)
    for (const sink of now.sinks) {
      for (const { key, shown } of ofSinks) shown.inc({ flow, sink: sink.label }, sink[key])
      pending.set({ flow, sink: sink.label }, sink.pending)
    }
    if (now.spool !== undefined) {
      spool.set({ flow }, now.spool.bytes)
      full.set({ flow }, now.spool.full ? 1 : 0)
    }
    for (const endpoint of [...now.sources, ...now.sinks]) {
      for (const each of STATES)
        state.set({ flow, endpoint: endpoint.label, role: endpoint.role, state: each }, endpoint.state === each ? 1 : 0)
      for (const [name, value] of Object.entries(endpoint.gauges))
        own.set({ flow, endpoint: endpoint.label, name }, value)
    }
    return registry.metrics()
  }
}
