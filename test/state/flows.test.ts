import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Log } from '../../src/core/contract'
import type { FlowState } from '../../src/core/flow/flow-state'
import { NOTHING } from '../../src/core/accounting/sink-ledger'
import { FlowRunning, UsageError } from '../../src/core/errors'
import { realFileSystem } from '../../src/kit/file-system'
import { nameFault, pathsOf, prepareInstance } from '../../src/state/directory'
import { openFlowFile } from '../../src/state/flow-file'
import {
  idleFlowsWithRecords,
  knownFlowConflict,
  listFlows,
  removedSinkFault,
  removedSinks,
  undelivered,
} from '../../src/state/flows'
import { forgetFlow } from '../../src/state/forget'
import { flowName, type EndpointIdentity, type FlowIdentity } from '../../src/state/identity'
import { ownInstance } from '../../src/state/instances'
import type { OwnedInstance } from '../../src/state/instances'
import { otherProcess } from './other-process'
import type { OtherProcess } from './other-process'

const silent: Log = { debug: () => undefined, info: () => undefined, warn: () => undefined }
const endpoint = (label: string): { id: string; label: string } => ({ id: `id of ${label}`, label })
const identityOf = (from: readonly string[], to: readonly string[]): FlowIdentity => ({
  sources: from.map(endpoint),
  sinks: to.map(endpoint),
})

interface Facts {
  readonly from?: string
  readonly to?: readonly string[]
  readonly cursor?: number
  readonly accepted?: number
  readonly clean?: boolean
  readonly spoolId?: string
}
function stateOf({
  from = 'ws://a/',
  to = ['s3://b/c'],
  cursor = 0,
  accepted = 0,
  clean = true,
  spoolId = 'spool',
}: Facts): FlowState {
  return {
    format: 1,
    spoolId,
    sequence: accepted,
    clean,
    acceptedThrough: accepted,
    sources: { [`id of ${from}`]: { label: from, positions: { p: '7' } } },
    sinks: Object.fromEntries(to.map((label) => [`id of ${label}`, { label, cursor }])),
    run: {
      id: 'r',
      started: 0,
      restarts: 0,
      read: accepted,
      bytesRead: 0,
      sinks: Object.fromEntries(to.map((label) => [`id of ${label}`, { ...NOTHING, delivered: cursor }])),
      gaps: [],
      gapCount: 0,
    },
  }
}

let root: string
const held: OwnedInstance[] = []
const others: OtherProcess[] = []
const hold = async (name: string, sharesWork: boolean): Promise<OwnedInstance> => {
  const one = await ownInstance(root, name, sharesWork)
  held.push(one)
  return one
}
async function store(name: string, instance: number, facts: Facts): Promise<void> {
  const paths = await prepareInstance(root, name, instance)
  const file = await openFlowFile<FlowState>(realFileSystem, paths.flowFile, silent)
  await file.save(stateOf(facts))
  await file.close()
}
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'manifold-flows-'))
})
afterEach(async () => {
  for (const one of others.splice(0)) await one.kill()
  for (const one of held.splice(0)) one.lock.release()
  await rm(root, { recursive: true })
})

describe('the name of an unnamed flow', () => {
  const SYSTEMS = { wss: 'ws', 'kafka+tls': 'kafka', amqps: 'amqp', '-': 'stdio' } as Record<string, string>
  /** As a plan names them: by the first scheme of their endpoint. */
  const ofSystem = ({ label, ...rest }: EndpointIdentity): EndpointIdentity => {
    const scheme = label.replace(/:.*/, '')
    return { ...rest, label, system: SYSTEMS[scheme] ?? scheme }
  }
  test.each([
    [['wss://feed.example:8443/v1?streams=btc'], ['s3://lake/trades'], 'ws-feed.example-to-s3-lake'],
    [['kafka+tls://h1:9092,h2:9092/orders'], ['stdio:'], 'kafka-h1-to-stdio'],
    [
      ['file:/var/log/app.ndjson'],
      ['kinesis:arn:aws:kinesis:eu-west-1:1:stream/logs'],
      'file-app.ndjson-to-kinesis-logs',
    ],
    [['amqps://mq.example/prod'], ['s3://a/', 's3://b/', 'discard:'], 'amqp-mq.example-to-s3-a-and-2'],
    [['generate:'], ['discard:'], 'generate-to-discard'],
    [['-'], ['-'], 'stdio-to-stdio'],
    [['file:/logs/*.gz'], ['ws://[::1]:80/'], 'file-gz-to-ws-1'],
    [[`s3://${'x'.repeat(200)}/`], ['-'], `s3-${'x'.repeat(29)}-to-stdio`],
  ])('%j to %j reads %s and is a valid one', (from, to, expected) => {
    const { sources, sinks } = identityOf(from, to)
    const name = flowName({ sources: sources.map(ofSystem), sinks: sinks.map(ofSystem) })
    expect(name.replace(/-[0-9a-f]{8}$/, '')).toBe(expected)
    expect(nameFault(name)).toBeUndefined()
  })

  test('the order of endpoints does not matter; roles and identities do', () => {
    const name = flowName(identityOf(['a:1', 'a:2'], ['b:1']))
    expect(flowName(identityOf(['a:2', 'a:1'], ['b:1'])).slice(-8)).toBe(name.slice(-8))
    expect(flowName(identityOf(['a:1'], ['b:1'])).slice(-8)).not.toBe(name.slice(-8))
    expect(flowName(identityOf(['b:1'], ['a:1', 'a:2'])).slice(-8)).not.toBe(name.slice(-8))
  })
})

describe('taking an instance', () => {
  test('a flow that shares no work has instance 0 alone; a second process is told the pid, the name and what to do', async () => {
    expect((await hold('flow', false)).instance).toBe(0)
    await expect(ownInstance(root, 'flow', false)).rejects.toThrow(FlowRunning)
    await expect(ownInstance(root, 'flow', false)).rejects.toThrow(
      new RegExp(`the flow flow is running already, as process ${process.pid}: .*--name`),
    )
  })

  test('flows that share work take the lowest free instances, one after the other', async () => {
    expect((await hold('flow', true)).instance).toBe(0)
    expect((await hold('flow', true)).instance).toBe(1)
    const third = await hold('flow', true)
    expect(third.instance).toBe(2)
    held[1]?.lock.release()
    expect((await hold('flow', true)).instance).toBe(1)
  })

  test('one that holds records goes before a lower one that holds none, unless it is held', async () => {
    await store('flow', 0, { cursor: 5, accepted: 5 })
    await store('flow', 1, { cursor: 2, accepted: 5 })
    await store('flow', 4, { clean: false })
    expect((await hold('flow', true)).instance).toBe(1)
    expect((await hold('flow', true)).instance).toBe(4)
    expect((await hold('flow', true)).instance).toBe(0)
    expect((await hold('flow', true)).instance).toBe(2)
  })

  test('what a killed process held is taken at once', async () => {
    const { lockFile } = await prepareInstance(root, 'flow', 0)
    const other = await otherProcess([lockFile])
    others.push(other)
    await expect(ownInstance(root, 'flow', false)).rejects.toThrow(`as process ${other.pid}`)
    await other.kill()
    expect((await hold('flow', false)).instance).toBe(0)
  })

  test('a damaged neighbour does not keep others from starting', async () => {
    await store('flow', 1, { clean: false })
    await writeFile(pathsOf(root, 'flow', 1).flowFile, 'garbage')
    expect((await hold('flow', true)).instance).toBe(0)
  })
})

describe('what is stored', () => {
  test('every instance of every flow is listed, with endpoints, holder and faults, and listing changes nothing', async () => {
    await store('b', 0, { from: 'ws://a/', to: ['s3://x/', 'stdio:'], accepted: 9 })
    await store('b', 1, {})
    await prepareInstance(root, 'c', 0)
    await writeFile((await prepareInstance(root, 'd', 0)).flowFile, 'garbage')
    await mkdir(join(root, 'not a flow'))
    const one = await hold('b', true)
    const before = await readFile(one.flowFile)
    const flows = await listFlows(root)
    expect(
      flows.map(({ name, instance, held, holder, sources, sinks, state, fault }) => [
        name,
        instance,
        held,
        holder,
        sources.length,
        sinks.length,
        state?.acceptedThrough,
        fault === undefined,
      ]),
    ).toEqual([
      ['b', 0, true, process.pid, 1, 2, 9, true],
      ['b', 1, false, undefined, 1, 1, 0, true],
      ['c', 0, false, undefined, 0, 0, undefined, true],
      ['d', 0, false, undefined, 0, 0, undefined, false],
    ])
    expect(flows[0]?.sinks).toContainEqual({ id: 'id of stdio:', label: 'stdio:' })
    expect(flows[3]?.fault).toMatch(/damaged/)
    expect((await readFile(one.flowFile)).equals(before)).toBe(true)
    expect(await readdir(join(root, 'c/0'))).toEqual([])
    expect(await listFlows(undefined)).toEqual([])
  })

  test('flows that hold records and have no process are those to be named at a start', async () => {
    await store('delivered', 0, { cursor: 5, accepted: 5 })
    await store('behind', 0, { cursor: 4, accepted: 5 })
    await store('killed', 0, { cursor: 5, accepted: 5, clean: false })
    await store('mine', 0, { cursor: 4, accepted: 5 })
    await store('running', 0, { cursor: 4, accepted: 5 })
    await hold('running', false)
    const idle = idleFlowsWithRecords(await listFlows(root), { name: 'mine', instance: 0 })
    expect(idle.map(({ name, state }) => [name, state === undefined ? [] : undelivered(state)])).toEqual([
      ['behind', [{ id: 'id of s3://b/c', label: 's3://b/c', records: 1 }]],
      ['killed', [{ id: 'id of s3://b/c', label: 's3://b/c' }]],
    ])
  })
})

describe('a changed command line', () => {
  test('sharing a source and a sink with a stored flow of another name is a conflict that offers both ways', async () => {
    await store('trades', 0, { from: 'ws://a/', to: ['s3://b/c', 'stdio:'] })
    const flows = await listFlows(root)
    const asked = (from: readonly string[], to: readonly string[]): string | undefined => {
      const identity = identityOf(from, to)
      return knownFlowConflict(flows, flowName(identity), identity)
    }
    expect(asked(['ws://a/', 'ws://new/'], ['s3://b/c'])).toBe(
      'ws://a/ to s3://b/c is known as the flow trades: --name trades goes on with it, --name with a new name begins afresh',
    )
    expect(asked(['ws://a/'], ['s3://other/'])).toBeUndefined()
    expect(asked(['ws://other/'], ['s3://b/c'])).toBeUndefined()
    // The roles are not interchangeable.
    expect(asked(['s3://b/c'], ['ws://a/'])).toBeUndefined()
  })

  test('a flow that is known itself goes on, whatever else shares its endpoints', async () => {
    const identity = identityOf(['ws://a/'], ['s3://b/c'])
    await store('trades', 0, {})
    await store(flowName(identity), 0, {})
    expect(knownFlowConflict(await listFlows(root), flowName(identity), identity)).toBeUndefined()
  })

  test('sinks no longer named are found, and the fault names the command that drops their records', () => {
    const state = stateOf({ to: ['s3://b/c', 'file:/my logs/x'], cursor: 3, accepted: 9 })
    expect(removedSinks(state, identityOf(['ws://a/'], ['s3://b/c']))).toEqual([
      { id: 'id of file:/my logs/x', label: 'file:/my logs/x', cursor: 3 },
    ])
    expect(removedSinkFault('trades', 'file:/my logs/x', 6)).toBe(
      "the flow trades holds 6 records for file:/my logs/x, which this line does not name: name it as it was, or, where they can never get there, drop them with: manifold forget trades 'file:/my logs/x' --force",
    )
  })
})

describe('forgetting', () => {
  test('a whole flow is removed with all it holds, others stay', async () => {
    await store('gone', 0, {})
    await store('gone', 1, {})
    await store('stays', 0, {})
    await writeFile(pathsOf(root, 'gone', 0).rejected, '{}')
    expect((await forgetFlow(root, 'gone', silent)).flows).toHaveLength(2)
    expect(await readdir(root)).toEqual(['stays'])
  })

  test('a running flow is not forgotten', async () => {
    await store('flow', 0, {})
    await store('flow', 1, {})
    const { lockFile } = pathsOf(root, 'flow', 1)
    const other = await otherProcess([lockFile])
    others.push(other)
    await expect(forgetFlow(root, 'flow', silent)).rejects.toThrow(
      `the flow flow is running as process ${other.pid}: stop it first`,
    )
    expect((await listFlows(root)).map(({ name }) => name)).toEqual(['flow', 'flow'])
    // What was locked on the way is free again.
    expect((await hold('flow', false)).instance).toBe(0)
  })

  test('one sink is forgotten by its label: what it was still to get counts as dropped, the rest goes on', async () => {
    await store('flow', 0, { to: ['s3://b/c', 'stdio:'], cursor: 4, accepted: 9 })
    await forgetFlow(root, 'flow', silent, { sink: 'stdio:', force: true })
    const [flow] = await listFlows(root)
    expect(Object.keys(flow?.state?.sinks ?? {})).toEqual(['id of s3://b/c'])
    expect(flow?.state?.run?.sinks['id of stdio:']).toMatchObject({ delivered: 4, dropped: 5 })
    expect(flow?.state?.run?.sinks['id of s3://b/c']).toMatchObject({ delivered: 4, dropped: 0 })
    expect(flow?.state?.sources['id of ws://a/']?.positions).toEqual({ p: '7' })
  })

  test('an unknown flow or sink: what there is is said', async () => {
    await store('flow', 0, {})
    await expect(forgetFlow(root, 'other', silent)).rejects.toThrow(UsageError)
    await expect(forgetFlow(root, '../flow', silent)).rejects.toThrow(UsageError)
    await expect(forgetFlow(root, 'flow', silent, { sink: 's3://nope/' })).rejects.toThrow(
      'the flow flow has no sink s3://nope/: it has s3://b/c',
    )
  })
})
