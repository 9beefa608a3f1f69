/** Who reads what: whatever the members hold and subscribe to, and in whatever order they come and go. */
import fc from 'fast-check'
import { assign, planSticky, type Assignment, type Member } from '../../../../src/endpoints/kafka/group/assignor'
import { keyOf, type TopicPartition } from '../../../../src/endpoints/kafka/group/consumer-protocol'

const TOPICS = ['a', 'b', 'c', 'd'] as const
const counts = fc
  .record(Object.fromEntries(TOPICS.map((topic) => [topic, fc.nat({ max: 9 })])))
  .map((record) => new Map(Object.entries(record)))
/** What each member subscribes to; at least one topic, which may not be there. */
const unequal = fc.array(fc.subarray([...TOPICS, 'absent'], { minLength: 1 }), { minLength: 1, maxLength: 6 })
const equal = fc
  .tuple(fc.subarray([...TOPICS], { minLength: 1 }), fc.integer({ min: 1, max: 6 }))
  .map(([topics, size]) => Array.from({ length: size }, () => topics))

interface Group {
  readonly members: readonly Member[]
  readonly counts: ReadonlyMap<string, number>
}

/** Members that hold what no other holds, of topics that they may have given up since. */
function groups(subscriptions: fc.Arbitrary<string[][]>): fc.Arbitrary<Group> {
  return fc.tuple(subscriptions, counts, fc.infiniteStream(fc.nat())).map(([topics, counted, picks]) => {
    const owned: TopicPartition[][] = topics.map(() => [])
    for (const at of all(counted)) {
      const holder = (picks.next().value as number) % (topics.length + 1)
      owned[holder]?.push(at)
    }
    return { counts: counted, members: topics.map((each, index) => member(`m${index}`, each, owned[index] ?? [])) }
  })
}
/**
 * Members whose claims make no sense together: several of one partition, of old generations, of partitions that are
 * gone.
 */
function quarrels(subscriptions: fc.Arbitrary<string[][]>): fc.Arbitrary<Group> {
  const claim = fc.record({ topic: fc.constantFrom(...TOPICS, 'absent'), partition: fc.nat({ max: 12 }) })
  return subscriptions.chain((topics) =>
    fc
      .tuple(
        counts,
        ...topics.map(() =>
          fc.tuple(fc.uniqueArray(claim, { selector: keyOf, maxLength: 8 }), fc.integer({ min: -1, max: 3 })),
        ),
      )
      .map(([counted, ...held]) => ({
        counts: counted,
        members: topics.map((each, index) => member(`m${index}`, each, held[index]?.[0] ?? [], held[index]?.[1])),
      })),
  )
}

function member(id: string, topics: readonly string[], owned: readonly TopicPartition[] = [], generation = 5): Member {
  return { id, subscription: { topics, owned, generation } }
}
function all(counted: ReadonlyMap<string, number>): TopicPartition[] {
  return [...counted].flatMap(([topic, count]) =>
    Array.from({ length: count }, (_, partition) => ({ topic, partition })),
  )
}
function loads(assignment: Assignment): number[] {
  return [...assignment.values()].map(({ length }) => length)
}
function sorted(assignment: Assignment): Record<string, string[]> {
  return Object.fromEntries([...assignment].map(([id, at]) => [id, at.map(keyOf).sort()]))
}

/** Nobody twice, nobody without, nobody who did not ask. */
function expectWhole(plan: Assignment, { members, counts: counted }: Group): void {
  const wanted = all(counted)
    .filter(({ topic }) => members.some(({ subscription }) => subscription.topics.includes(topic)))
    .map(keyOf)
    .sort()
  expect([...plan.values()].flat().map(keyOf).sort()).toEqual(wanted)
  for (const { id, subscription } of members)
    for (const { topic } of plan.get(id) ?? []) expect(subscription.topics).toContain(topic)
}

/** One round: what a member was not given it releases, what it was given it holds from now on. */
function next(group: Group, assignment: Assignment, generation: number): Group {
  return {
    ...group,
    members: group.members.map(({ id, subscription }) =>
      member(id, subscription.topics, assignment.get(id) ?? [], generation),
    ),
  }
}

describe('cooperative-sticky', () => {
  test('every partition that somebody subscribes to has exactly one member in the plan, whatever they claim', () => {
    fc.assert(
      fc.property(fc.oneof(groups(equal), groups(unequal), quarrels(equal), quarrels(unequal)), (group) => {
        expectWhole(planSticky(group.members, group.counts), group)
      }),
    )
  })

  test('with equal subscriptions no member has two more than another', () => {
    fc.assert(
      fc.property(fc.oneof(groups(equal), quarrels(equal)), ({ members, counts: counted }) => {
        const each = loads(planSticky(members, counted))
        expect(Math.max(...each) - Math.min(...each)).toBeLessThanOrEqual(1)
      }),
    )
  })

  test('with unequal subscriptions it is as even as they allow', () => {
    const few = fc
      .record({ a: fc.nat({ max: 3 }), b: fc.nat({ max: 2 }), c: fc.nat({ max: 2 }) })
      .map((record) => new Map(Object.entries(record)))
    fc.assert(
      fc.property(
        fc.array(fc.subarray(['a', 'b', 'c'], { minLength: 1 }), { minLength: 1, maxLength: 3 }),
        few,
        (topics, counted) => {
          const members = topics.map((each, index) => member(`m${index}`, each))
          const squares = (each: readonly number[]): number => each.reduce((sum, load) => sum + load * load, 0)
          const open = all(counted).filter(({ topic }) => topics.some((each) => each.includes(topic)))
          // Every way there is.
          const best = (index: number, each: number[]): number => {
            const at = open[index]
            if (at === undefined) return squares(each)
            return Math.min(
              ...topics.flatMap((own, taker) =>
                own.includes(at.topic)
                  ? [
                      best(
                        index + 1,
                        each.map((load, other) => (other === taker ? load + 1 : load)),
                      ),
                    ]
                  : [],
              ),
            )
          }
          expect(squares(loads(planSticky(members, counted)))).toBe(
            best(
              0,
              topics.map(() => 0),
            ),
          )
        },
      ),
    )
  })

  test('with equal subscriptions no partition moves that need not', () => {
    fc.assert(
      fc.property(groups(equal), ({ members, counts: counted }) => {
        const plan = planSticky(members, counted)
        const subscribed = members[0]?.subscription.topics ?? []
        const total = all(counted).filter(({ topic }) => subscribed.includes(topic)).length
        const held = members
          .map(({ subscription }) => subscription.owned.filter(({ topic }) => subscribed.includes(topic)).length)
          .sort((a, b) => b - a)
        // Those that hold most may have one more.
        const possible = held.reduce(
          (sum, load, index) =>
            sum + Math.min(load, Math.floor(total / members.length) + (index < total % members.length ? 1 : 0)),
          0,
        )
        const kept = members.reduce(
          (sum, { id, subscription }) =>
            sum +
            (plan.get(id) ?? []).filter((at) => subscription.owned.some((own) => keyOf(own) === keyOf(at))).length,
          0,
        )
        expect(kept).toBe(possible)
      }),
    )
  })

  test('nobody is given what another still claims, and after two rounds everybody has what was planned for good', () => {
    fc.assert(
      fc.property(fc.oneof(groups(equal), groups(unequal), quarrels(equal), quarrels(unequal)), (first) => {
        let group = first
        for (let round = 0; round < 3; round++) {
          const given = assign('cooperative-sticky', group.members, group.counts)
          for (const [id, partitions] of given) {
            const others = new Set(
              group.members
                .filter((each) => each.id !== id)
                .flatMap(({ subscription }) => subscription.owned.map(keyOf)),
            )
            for (const at of partitions) expect(others).not.toContain(keyOf(at))
          }
          group = next(group, given, 6 + round)
        }
        const given = assign('cooperative-sticky', group.members, group.counts)
        expectWhole(given, group)
        expect(sorted(given)).toEqual(
          Object.fromEntries(group.members.map(({ id, subscription }) => [id, subscription.owned.map(keyOf).sort()])),
        )
      }),
    )
  })

  test('whoever leaves leaves his partitions to the others, who keep theirs', () => {
    fc.assert(
      fc.property(
        equal.filter((topics) => topics.length > 1),
        counts,
        (topics, counted) => {
          const settled = next(
            { members: topics.map((each, index) => member(`m${index}`, each)), counts: counted },
            planSticky(
              topics.map((each, index) => member(`m${index}`, each)),
              counted,
            ),
            1,
          )
          const rest = { ...settled, members: settled.members.slice(1) }
          const given = assign('cooperative-sticky', rest.members, counted)
          expectWhole(given, rest)
          for (const { id, subscription } of rest.members)
            expect(given.get(id)?.map(keyOf)).toEqual(expect.arrayContaining(subscription.owned.map(keyOf)))
        },
      ),
    )
  })

  test('the newer of two claims wins, and the older has to release first', () => {
    const members = [
      member('old', ['a'], [{ topic: 'a', partition: 0 }], 3),
      member('new', ['a'], [{ topic: 'a', partition: 0 }], 4),
    ]
    expect(sorted(planSticky(members, new Map([['a', 1]])))).toEqual({ old: [], new: ['a 0'] })
    expect(sorted(assign('cooperative-sticky', members, new Map([['a', 1]])))).toEqual({ old: [], new: [] })
  })

  test('a thousand partitions and a hundred members are settled within a moment', () => {
    const members = Array.from({ length: 100 }, (_, index) =>
      member(`m${index}`, ['a'], index === 0 ? all(new Map([['a', 1000]])) : []),
    )
    const begun = performance.now()
    expect(loads(planSticky(members, new Map([['a', 1000]])))).toEqual(Array.from({ length: 100 }, () => 10))
    expect(performance.now() - begun).toBeLessThan(2000)
  })
})

describe('range', () => {
  test('gives each topic in neighbouring runs, to members in order of instance id before those without', () => {
    const members = [member('z', ['a', 'b']), { ...member('y', ['a']), instanceId: 'static' }, member('x', ['a', 'b'])]
    expect(
      sorted(
        assign(
          'range',
          members,
          new Map([
            ['a', 4],
            ['b', 3],
          ]),
        ),
      ),
    ).toEqual({ y: ['a 0', 'a 1'], x: ['a 2', 'b 0', 'b 1'], z: ['a 3', 'b 2'] })
  })

  test('every partition that somebody subscribes to has exactly one member', () => {
    fc.assert(
      fc.property(fc.oneof(groups(equal), groups(unequal)), (group) => {
        expectWhole(assign('range', group.members, group.counts), group)
      }),
    )
  })
})
