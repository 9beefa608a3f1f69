import { progressLine } from '../../src/cli/progress'
import { NOTHING } from '../../src/core/accounting/sink-ledger'
import type { FlowStatus } from '../../src/core/flow/status'

function statusWith(gauges: Readonly<Record<string, number>>): FlowStatus {
  const endpoint = { id: 'x', state: 'running', since: 0, faults: 0 } as const
  return {
    name: 'flow',
    started: 0,
    read: 12_345,
    bytesRead: 0,
    restarts: 0,
    gaps: 0,
    sources: [{ ...endpoint, role: 'source', label: 'from', gauges }],
    sinks: [{ ...endpoint, role: 'sink', label: 'to', gauges: {}, ...NOTHING, delivered: 12_000, pending: 345 }],
  }
}

test.each([
  [{}, '12,345 in (100/s, 2KiB/s) → 12,000 out, 345 to go'],
  [{ 'lag orders-0': 0, 'behind-ms shard': 7 }, '12,345 in (100/s, 2KiB/s) → 12,000 out, 345 to go'],
  [{ 'lag orders-0': 1500, 'lag orders-1': 0 }, '12,345 in (100/s, 2KiB/s) → 12,000 out, 345 to go, 1,500 behind'],
  [
    { 'lag orders-0': 1500, 'lag orders-1': 2000, 'lag orders-2': 1 },
    '12,345 in (100/s, 2KiB/s) → 12,000 out, 345 to go, 3,501 behind, most in orders-1: 2,000',
  ],
])('the live line says how far its partitions are behind: %j', (gauges, line) => {
  expect(progressLine(statusWith(gauges), 100, 2048)).toBe(line)
})
