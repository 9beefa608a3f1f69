/**
 * What is fetched while the cluster changes: over a cluster that does as it is told, for a real one does not do it at
 * the right moment.
 */
import { Disconnected } from '../../../../src/core/errors'
import { Fetcher } from '../../../../src/endpoints/kafka/consume/fetcher'
import { RecordWriter, stampBatch } from '../../../../src/endpoints/kafka/produce/record-writer'
import { PartitionState } from '../../../../src/endpoints/kafka/consume/partition-state'
import type { Cluster, FetchResult } from '../../../../src/endpoints/kafka/protocol/cluster'
import { systemClock } from '../../../../src/kit/clock'

async function batch(values: readonly string[]): Promise<Buffer> {
  const writer = new RecordWriter(1024)
  for (const value of values) writer.add({ value: Buffer.from(value) }, 0)
  const sealed = await writer.seal('gzip')
  stampBatch(sealed, { id: -1n, epoch: -1 }, -1)
  return Buffer.concat(sealed)
}
function answer(partition: number, records: Buffer): FetchResult {
  return {
    topic: 'orders',
    partition,
    error: 0,
    highWatermark: 3,
    lastStableOffset: 3,
    logStartOffset: 0,
    aborted: [],
    preferredReplica: -1,
    records,
  }
}

function fetching(
  fetch: (broker: number, call: number) => Promise<readonly FetchResult[]>,
  seen: (track: PartitionState) => void,
) {
  const end = new AbortController()
  const unreachable: number[] = []
  const failures: unknown[] = []
  let calls = 0
  const cluster = {
    fetch: (broker: number, _asks: unknown, _options: unknown, signal: AbortSignal) =>
      Promise.race([
        fetch(broker, calls++),
        new Promise<never>((_, reject) => {
          signal.addEventListener(
            'abort',
            () => {
              reject(signal.reason as Error)
            },
            { once: true },
          )
        }),
      ]),
  } as unknown as Cluster
  const fetcher = new Fetcher({
    cluster,
    clock: systemClock,
    signal: end.signal,
    bufferBytes: 1 << 20,
    replicaMs: 1000,
    fetch: { maxWaitMs: 10, minBytes: 1, maxBytes: 1 << 20, committedOnly: false, rack: '' },
    onChanged: () => undefined,
    onProgress: seen,
    onRefused: () => undefined,
    onReached: () => undefined,
    onUnreachable: (broker) => {
      unreachable.push(broker)
    },
    onFailed: (error) => {
      failures.push(error)
    },
  })
  return {
    fetcher,
    unreachable,
    failures,
    stop: async () => {
      end.abort(new Error('over'))
      await fetcher.settled()
    },
  }
}
const never = new Promise<never>(() => undefined)
const values = (fetcher: Fetcher): string[] =>
  (fetcher.takeNext()?.blocks ?? []).flatMap((block) => {
    const entries: { readonly value: Buffer | null }[] = []
    block.entries(entries)
    return entries.map(({ value }) => String(value))
  })
const until = async (condition: () => boolean): Promise<void> => {
  for (const giveUpAt = Date.now() + 5000; !condition() && Date.now() < giveUpAt; )
    await new Promise((resolve) => {
      setTimeout(resolve, 5)
    })
}

describe('the fetcher', () => {
  it('a partition whose leader goes away while its records are being decompressed has them all the same', async () => {
    const records = await batch(['a', 'b', 'c'])
    const { fetcher, stop } = fetching(
      (_, call) => (call === 0 ? Promise.resolve([answer(0, records)]) : never),
      (track) => {
        queueMicrotask(() => {
          track.paused = track.leaderUnknown = true
        })
      },
    )
    const track = new PartitionState('orders', '', 0, 1, 0, { leader: 1, leaderEpoch: 0 }, 1 << 20)
    fetcher.add([track])
    await until(() => track.inFlight.count === 1 && track.next === 3)
    expect(values(fetcher)).toEqual(['a', 'b', 'c'])
    await stop()
  })

  it('a broker that cannot be reached is told of, the others go on, and it is asked again when its partitions are to be read on', async () => {
    const records = await batch(['a', 'b', 'c'])
    let dead = true
    const { fetcher, unreachable, failures, stop } = fetching(
      (broker) =>
        broker === 1
          ? dead
            ? Promise.reject(new Disconnected('gone'))
            : never
          : Promise.resolve([answer(1, records)]),
      () => undefined,
    )
    const tracks = [0, 1].map(
      (partition) =>
        new PartitionState('orders', '', partition, 1, 0, { leader: partition + 1, leaderEpoch: 0 }, 1 << 20),
    )
    tracks[1]!.end = 3
    fetcher.add(tracks)
    await until(() => tracks[1]!.next === 3 && tracks[1]!.inFlight.count === 0 && unreachable.length === 1)
    expect(unreachable).toEqual([1])
    expect(values(fetcher)).toEqual(['a', 'b', 'c'])
    expect(tracks[0]!.inFlight.count).toBe(0)
    dead = false
    fetcher.update()
    expect(tracks[0]!.inFlight.count).toBe(1)
    expect(failures).toEqual([])
    await stop()
  })
})
