/**
 * Membership against a coordinator in memory, on a clock that is wound: what must hold in the corners that a real
 * broker shows once in a while.
 */
import { Disconnected, Fatal, Refused } from '../../../../src/core/errors'
import { keyOf, type TopicPartition } from '../../../../src/endpoints/kafka/group/consumer-protocol'
import { GroupMember } from '../../../../src/endpoints/kafka/group/member'
import type { GroupSettings } from '../../../../src/endpoints/kafka/group/member-context'
import { Coordinator, runPending, ManualClock } from './coordinator'

const SETTINGS: GroupSettings = {
  group: 'g',
  sessionTimeoutMs: 10_000,
  rebalanceTimeoutMs: 60_000,
  heartbeatMs: 3000,
  assignor: 'cooperative-sticky',
  metadataMs: 30_000,
}

let clock: ManualClock
let coordinator: Coordinator
let counts: Map<string, number>
const abort = new AbortController()

beforeEach(() => {
  clock = new ManualClock()
  coordinator = new Coordinator(clock)
  counts = new Map([['t', 4]])
})

/** A source that says what it was told, and drains when the test says so. */
class Reader {
  readonly told: string[] = []
  /** The epoch of each partition as told. */
  readonly holds = new Map<string, number>()
  readonly failures: unknown[] = []
  readonly drains: { readonly partitions: readonly string[]; readonly withinMs: number; done(): void }[] = []
  /** Drains only when `drains` is called. */
  slow = false
  topics: string[] = ['t']
  readonly member: GroupMember

  constructor(settings: Partial<GroupSettings> = {}) {
    this.member = new GroupMember({ ...SETTINGS, ...settings })
  }

  /**
   * @param ms until it has joined: a member without an id is taken in at once, a static one once all others have come
   *   back
   */
  async start(ms = 0): Promise<void> {
    const started = this.member.start(
      {
        coordinator: coordinator.client(),
        clock,
        log: { debug: () => undefined, info: () => undefined, warn: () => undefined },
        topics: () => this.topics,
        partitionsOf: (topics) => Promise.resolve(new Map([...counts].filter(([topic]) => topics.includes(topic)))),
        listener: {
          assigned: (partitions, epoch) => {
            this.told.push(`assigned ${names(partitions)}`)
            for (const at of partitions) this.holds.set(keyOf(at), epoch)
          },
          revoked: (partitions, withinMs) => {
            this.told.push(`revoked ${names(partitions)}`)
            return new Promise((resolve) => {
              const done = (): void => {
                for (const at of partitions) this.holds.delete(keyOf(at))
                resolve()
              }
              if (this.slow) this.drains.push({ partitions: partitions.map(keyOf), withinMs, done })
              else done()
            })
          },
          lost: (partitions) => {
            this.told.push(`lost ${names(partitions)}`)
            for (const at of partitions) this.holds.delete(keyOf(at))
          },
          failed: (error) => {
            this.failures.push(error)
          },
        },
      },
      abort.signal,
    )
    started.catch(() => undefined)
    await clock.pass(ms)
    await started
  }

  get held(): string[] {
    return [...this.holds.keys()].sort()
  }
  epoch(partition: number): number {
    return this.holds.get(`t ${partition}`) ?? -1
  }
  commit(partition: number, offset: number, epoch = this.epoch(partition)): Promise<void> {
    return this.member.commit([{ topic: 't', partition, offset, leaderEpoch: -1 }], epoch)
  }
}
function names(partitions: readonly TopicPartition[]): string {
  return partitions.map(keyOf).sort().join(', ')
}
/** Rebalances are heard of at the next heartbeat. */
async function settle(): Promise<void> {
  for (let beats = 0; beats < 6; beats++) await clock.pass(SETTINGS.heartbeatMs)
}

describe('joining and sharing', () => {
  test('a member alone has everything; what another is to have is drained before it is given up, and given on only then', async () => {
    const a = new Reader()
    const b = new Reader()
    await a.start()
    expect(a.held).toEqual(['t 0', 't 1', 't 2', 't 3'])
    a.slow = true
    await b.start()
    await clock.pass(3000)
    expect(a.drains.map(({ partitions }) => partitions)).toEqual([['t 2', 't 3']])
    expect(b.held).toEqual([])
    const before = coordinator.count('heartbeat')
    await clock.pass(20_000)
    // While it drains the group lives on, and nobody else has what it drains.
    expect(coordinator.count('heartbeat')).toBeGreaterThan(before + 5)
    expect(b.held).toEqual([])
    await a.commit(2, 77)
    a.drains[0]?.done()
    await settle()
    expect(a.held).toEqual(['t 0', 't 1'])
    expect(b.held).toEqual(['t 2', 't 3'])
    expect(coordinator.offsets.get('t 2')).toBe(77)
    expect(a.told).toEqual(['assigned t 0, t 1, t 2, t 3', 'revoked t 2, t 3'])
    expect(a.failures).toEqual([])
  })

  test('what is kept through a rebalance keeps its epoch; what comes back has a new one', async () => {
    const a = new Reader()
    const b = new Reader()
    await a.start()
    const first = a.epoch(0)
    await b.start()
    await settle()
    expect(a.epoch(0)).toBe(first)
    await b.member.leave()
    await settle()
    expect(a.held).toEqual(['t 0', 't 1', 't 2', 't 3'])
    expect(a.epoch(0)).toBe(first)
    expect(a.epoch(3)).toBeGreaterThan(first)
  })

  test('a drain that takes too long ends at its deadline, well within the rebalance timeout; what is committed later never reaches the broker', async () => {
    const a = new Reader()
    const b = new Reader()
    await a.start()
    const epoch = a.epoch(3)
    a.slow = true
    await b.start()
    await clock.pass(3000)
    const within = a.drains[0]?.withinMs ?? 0
    expect(within).toBeGreaterThan(SETTINGS.rebalanceTimeoutMs / 2)
    expect(within).toBeLessThan(SETTINGS.rebalanceTimeoutMs - SETTINGS.heartbeatMs)
    await clock.pass(within - 1000)
    expect(b.held).toEqual([])
    await clock.pass(2000)
    await settle()
    expect(b.held).toEqual(['t 2', 't 3'])
    await a.commit(3, 99, epoch)
    expect(coordinator.commits).toEqual([])
  })

  test('a member that comes while another drains waits for it, and all end up with their share', async () => {
    const [a, b, c] = [new Reader(), new Reader(), new Reader()]
    await a.start()
    a.slow = true
    await b.start()
    await clock.pass(3000)
    await c.start()
    await clock.pass(6000)
    expect([b.held, c.held]).toEqual([[], []])
    a.slow = false
    a.drains[0]?.done()
    await settle()
    expect([...a.held, ...b.held, ...c.held].sort()).toEqual(['t 0', 't 1', 't 2', 't 3'])
    expect([a.held.length, b.held.length, c.held.length].sort()).toEqual([1, 1, 2])
    expect([...a.failures, ...b.failures, ...c.failures]).toEqual([])
  })

  test('range gives everything up before each rebalance', async () => {
    const a = new Reader({ assignor: 'range' })
    const b = new Reader({ assignor: 'range' })
    await a.start()
    await b.start()
    await settle()
    expect(a.told.slice(0, 3)).toEqual([
      'assigned t 0, t 1, t 2, t 3',
      'revoked t 0, t 1, t 2, t 3',
      expect.stringMatching(/^assigned t \d, t \d$/),
    ])
    expect([...a.held, ...b.held].sort()).toEqual(['t 0', 't 1', 't 2', 't 3'])
  })

  test('whoever leaves leaves its partitions at once; a coordinator that is away does not hold it up', async () => {
    const a = new Reader()
    const b = new Reader()
    await a.start()
    await b.start()
    await settle()
    await b.member.leave()
    expect(coordinator.count('leave')).toBe(1)
    await clock.pass(3000)
    expect(a.held).toEqual(['t 0', 't 1', 't 2', 't 3'])
    coordinator.down = true
    await a.member.leave()
  })

  test('new partitions are seen by the leader, other topics by whoever reads them', async () => {
    const a = new Reader()
    await a.start()
    counts.set('t', 6)
    await clock.pass(SETTINGS.metadataMs)
    expect(a.held).toHaveLength(6)
    const joins = coordinator.count('join')
    a.member.subscriptionChanged()
    await clock.pass(0)
    expect(coordinator.count('join')).toBe(joins)
    counts.set('u', 1)
    a.topics = ['t', 'u']
    a.member.subscriptionChanged()
    await clock.pass(0)
    expect(a.held).toContain('u 0')
    expect(a.told.filter((line) => line.startsWith('revoked'))).toEqual([])
  })
})

describe('fencing', () => {
  test.each([
    ['heartbeat', 25],
    ['heartbeat', 22],
    ['commit', 25],
    ['commit', 22],
  ] as const)(
    'a %s answered with %d: everything is lost at once, and joined anew under a new epoch',
    async (call, code) => {
      const a = new Reader()
      await a.start()
      const epoch = a.epoch(0)
      coordinator.injectedErrors[call] = [code]
      if (call === 'commit') await a.commit(0, 5)
      else await clock.pass(SETTINGS.heartbeatMs)
      expect(a.told[1]).toBe('lost t 0, t 1, t 2, t 3')
      await settle()
      expect(a.held).toHaveLength(4)
      expect(a.epoch(0)).toBeGreaterThan(epoch)
      // What was in flight under the old epoch is dropped.
      await a.commit(0, 6, epoch)
      expect(coordinator.commits).toEqual([])
      await a.commit(0, 7)
      expect(coordinator.offsets.get('t 0')).toBe(7)
    },
  )

  test('a session that ends while it drains ends the drain', async () => {
    const a = new Reader()
    const b = new Reader()
    await a.start()
    a.slow = true
    await b.start()
    await clock.pass(3000)
    expect(a.drains).toHaveLength(1)
    coordinator.remove([...coordinator.members.keys()][0]!)
    await settle()
    expect(a.told).toContain('lost t 0, t 1, t 2, t 3')
    expect([...a.held, ...b.held].sort()).toEqual(['t 0', 't 1', 't 2', 't 3'])
  })

  test('another process under the same instance id ends this one, clearly', async () => {
    const a = new Reader({ instanceId: 'one' })
    const b = new Reader({ instanceId: 'one' })
    await a.start()
    await b.start()
    await clock.pass(SETTINGS.heartbeatMs)
    expect(a.told.at(-1)).toBe('lost t 0, t 1, t 2, t 3')
    expect(a.failures).toEqual([expect.any(Fatal)])
    expect((a.failures[0] as Error).message).toMatch(/another process runs as instance one/)
    expect(b.held).toHaveLength(4)
  })
})

describe('commits', () => {
  test('what is asked for at once goes in one request, and what arrives meanwhile in the next', async () => {
    const a = new Reader()
    await a.start()
    await Promise.all([a.commit(0, 1), a.commit(1, 2), a.commit(2, 3)])
    expect(coordinator.count('commit')).toBe(1)
    await Promise.all([a.commit(0, 4), runPending().then(() => a.commit(1, 5))])
    expect(Object.fromEntries(coordinator.offsets)).toEqual({ 't 0': 4, 't 1': 5, 't 2': 3 })
  })

  test('answered with REBALANCE_IN_PROGRESS it is sent again in the new generation, while the partition is still ours', async () => {
    const a = new Reader()
    await a.start()
    coordinator.injectedErrors.commit = [27]
    const generation = coordinator.generation
    const committed = a.commit(0, 42)
    await settle()
    await committed
    expect(coordinator.commits).toEqual([expect.objectContaining({ offset: 42, generation: generation + 1 })])
    expect(a.told).toHaveLength(1)
  })

  test('answered as of an old generation while a join is under way nothing is lost: it is sent again in the new one', async () => {
    const a = new Reader()
    await a.start()
    const epoch = a.epoch(0)
    coordinator.delayJoins = true
    coordinator.prepare()
    await clock.pass(SETTINGS.heartbeatMs)
    expect(coordinator.asked.at(-1)?.call).toBe('join')
    coordinator.injectedErrors.commit = [22]
    const committed = a.commit(0, 42)
    await clock.pass(5000)
    expect(coordinator.commits).toEqual([])
    coordinator.delayJoins = false
    coordinator.completeJoin()
    await clock.pass(0)
    await committed
    expect(coordinator.commits).toEqual([expect.objectContaining({ offset: 42, generation: coordinator.generation })])
    expect(a.told).toHaveLength(1)
    expect(a.epoch(0)).toBe(epoch)
  })

  test('while a join waits for others, commits go on under the old generation', async () => {
    const a = new Reader()
    await a.start()
    coordinator.delayJoins = true
    coordinator.prepare()
    await clock.pass(SETTINGS.heartbeatMs)
    expect(coordinator.asked.at(-1)?.call).toBe('join')
    await a.commit(0, 1)
    expect(coordinator.offsets.get('t 0')).toBe(1)
  })

  test('a coordinator that moves: the commit is refused as a lost connection, for the core to send again', async () => {
    const a = new Reader()
    await a.start()
    coordinator.injectedErrors.commit = [16]
    await expect(a.commit(0, 1)).rejects.toBeInstanceOf(Disconnected)
    expect(coordinator.forgotten).toBe(1)
    await a.commit(0, 1)
    expect(coordinator.offsets.get('t 0')).toBe(1)
  })

  test('no permission is said as such', async () => {
    const a = new Reader()
    await a.start()
    coordinator.injectedErrors.commit = [29]
    await expect(a.commit(0, 1)).rejects.toBeInstanceOf(Refused)
  })

  test('the committed offset waits for a transaction that is about to change it; partitions without one are left out', async () => {
    const a = new Reader()
    await a.start()
    await a.commit(1, 8)
    coordinator.injectedErrors.committed = [88, 14]
    const asked = a.member.committed(
      [
        { topic: 't', partition: 0 },
        { topic: 't', partition: 1 },
      ],
      abort.signal,
    )
    await clock.pass(1000)
    expect([...(await asked)].map(([key, { offset }]) => [key, offset])).toEqual([['t 1', 8]])
    expect(coordinator.count('committed')).toBe(3)
  })
})

describe('a coordinator that moves, loads, dies', () => {
  test.each([14, 15, 16])('heartbeats answered with %d look for it again, and nothing is lost', async (code) => {
    const a = new Reader()
    await a.start()
    coordinator.injectedErrors.heartbeat = [code, code]
    await clock.pass(2 * SETTINGS.heartbeatMs)
    expect(coordinator.forgotten).toBe(2)
    expect(a.told).toHaveLength(1)
    await a.commit(0, 1)
    expect(a.failures).toEqual([])
  })

  test('a join waits for it, at a pace, for as long as a session', async () => {
    const a = new Reader()
    coordinator.injectedErrors.join = [15, 14, 16]
    const started = a.start()
    await clock.pass(1000)
    await started
    expect(a.held).toHaveLength(4)
    const b = new Reader()
    coordinator.injectedErrors.join = Array.from({ length: 1000 }, () => 15)
    const never = expect(b.start()).rejects.toBeInstanceOf(Disconnected)
    await clock.pass(2 * SETTINGS.sessionTimeoutMs)
    await never
    expect(coordinator.count('join')).toBeLessThan(60)
    expect(b.failures).toEqual([])
  })

  test('away for less than a session: nobody hears of it', async () => {
    const a = new Reader()
    await a.start()
    coordinator.down = true
    await clock.pass(SETTINGS.sessionTimeoutMs - 1000)
    coordinator.down = false
    await clock.pass(SETTINGS.heartbeatMs)
    await a.commit(0, 3)
    expect(a.told).toHaveLength(1)
    expect(a.failures).toEqual([])
  })

  test('away for longer: told once; back again nothing is lost, the epochs hold, and what was in flight is committed', async () => {
    const a = new Reader()
    await a.start()
    const epochs = new Map(a.holds)
    const { generation } = coordinator
    coordinator.down = true
    await clock.pass(3 * SETTINGS.sessionTimeoutMs)
    expect(a.failures).toEqual([expect.any(Disconnected)])
    await a.member.suspend()
    await expect(a.commit(0, 9)).rejects.toBeInstanceOf(Disconnected)
    await expect(a.start()).rejects.toBeInstanceOf(Disconnected)
    coordinator.down = false
    await a.start()
    expect(a.told).toEqual(['assigned t 0, t 1, t 2, t 3', 'assigned t 0, t 1, t 2, t 3'])
    expect(a.holds).toEqual(epochs)
    expect(coordinator.generation).toBe(generation)
    await a.commit(0, 9)
    expect(coordinator.offsets.get('t 0')).toBe(9)
  })

  test('back after the session has ended: lost first, then joined anew', async () => {
    const a = new Reader()
    await a.start()
    const epoch = a.epoch(0)
    await a.member.suspend()
    await clock.pass(SETTINGS.sessionTimeoutMs + 1000)
    await a.start()
    await clock.pass(1000)
    expect(a.told.slice(1)).toEqual(['lost t 0, t 1, t 2, t 3', 'assigned t 0, t 1, t 2, t 3'])
    expect(a.epoch(0)).toBeGreaterThan(epoch)
  })

  test('cut off between a release and the join that tells of it, the next run begins with that join', async () => {
    const a = new Reader()
    const b = new Reader()
    await a.start()
    a.slow = true
    await b.start()
    await clock.pass(3000)
    coordinator.down = true
    a.drains[0]?.done()
    await clock.pass(100)
    expect(a.failures).toEqual([expect.any(Disconnected)])
    await a.member.suspend()
    coordinator.down = false
    a.slow = false
    await a.start()
    await settle()
    expect([a.held, b.held]).toEqual([
      ['t 0', 't 1'],
      ['t 2', 't 3'],
    ])
    expect(a.told.filter((line) => line.startsWith('lost'))).toEqual([])
  })

  test('cut off while it drains, the next run drains on', async () => {
    const a = new Reader()
    const b = new Reader()
    await a.start()
    a.slow = true
    await b.start()
    await clock.pass(3000)
    await a.member.suspend()
    a.slow = false
    await a.start()
    await settle()
    expect(a.told.slice(1, 4)).toEqual(['revoked t 2, t 3', 'assigned t 0, t 1, t 2, t 3', 'revoked t 2, t 3'])
    expect([a.held, b.held]).toEqual([
      ['t 0', 't 1'],
      ['t 2', 't 3'],
    ])
  })

  test('a refusal is what start throws', async () => {
    const a = new Reader()
    coordinator.injectedErrors.join = [30]
    await expect(a.start()).rejects.toThrow(/group g: joining: no permission/)
    expect(a.failures).toEqual([])
  })

  test('later it is told of where the source reads', async () => {
    const a = new Reader()
    await a.start()
    coordinator.injectedErrors.heartbeat = [30]
    await clock.pass(SETTINGS.heartbeatMs)
    expect(a.failures).toEqual([expect.any(Refused)])
    const beats = coordinator.count('heartbeat')
    await clock.pass(SETTINGS.sessionTimeoutMs)
    expect(coordinator.count('heartbeat')).toBe(beats)
  })
})

describe('static membership', () => {
  test('a member that closes does not leave; back within the session it has the same partitions at once, and nothing moves', async () => {
    const a = new Reader({ instanceId: 'one' })
    const b = new Reader({ instanceId: 'two' })
    await a.start()
    await b.start(SETTINGS.heartbeatMs)
    await settle()
    const { held } = a
    const told = b.told.length
    await a.member.leave()
    expect(coordinator.count('leave')).toBe(0)
    await clock.pass(SETTINGS.sessionTimeoutMs / 2)
    const again = new Reader({ instanceId: 'one' })
    await again.start()
    expect(again.held).toEqual(held)
    await settle()
    expect(again.told).toHaveLength(1)
    expect(b.told).toHaveLength(told)
  })

  test('killed while it drains, what it was to give up is given on when it is back', async () => {
    const a = new Reader({ instanceId: 'one' })
    const b = new Reader()
    await a.start()
    a.slow = true
    await b.start()
    await clock.pass(2 * SETTINGS.heartbeatMs)
    expect(a.drains).toHaveLength(1)
    await a.member.suspend()
    const again = new Reader({ instanceId: 'one' })
    await again.start()
    await settle()
    expect([again.held.length, b.held.length]).toEqual([2, 2])
  })

  test("away for longer than the session its partitions are others'", async () => {
    const a = new Reader({ instanceId: 'one' })
    const b = new Reader({ instanceId: 'two' })
    await a.start()
    await b.start(SETTINGS.heartbeatMs)
    await settle()
    await a.member.leave()
    await clock.pass(SETTINGS.sessionTimeoutMs + 1000)
    await settle()
    expect(b.held).toHaveLength(4)
  })
})
