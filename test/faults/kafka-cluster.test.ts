/**
 * Several brokers, those that lead killed in turn while the built program writes and reads: it lives, nothing is
 * missing, nothing is twice, each key's order is kept.
 */
import { spawn } from 'node:child_process'
import { createReadStream, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FlowStatus } from '../../src/core/flow/status'
import { describeWith } from '../services/describe-with'
import {
  groupName,
  kcat,
  leaders,
  makeTopic,
  startKafkaCluster,
  type KafkaBroker,
  type KafkaCluster,
} from '../services/kafka'
import {
  assertAlive,
  envelopeKey,
  KafkaFeed,
  scanRecords,
  untilDelivering,
  pause,
  statusAt,
} from '../support/kafka-feed'
import { start, type Running } from '../support/manifold'

const PARTITIONS = 3

describeWith('kcat', 'a cluster of three brokers', () => {
  let cluster: KafkaCluster
  let folder: string
  let topic: string
  let feed: KafkaFeed | undefined
  const running = new Map<string, Running>()
  const socket = (name: string): string => join(folder, `${name}.sock`)
  const status = (name: string): Promise<FlowStatus | undefined> => statusAt(socket(name))

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'manifold-kafka-cluster-'))
    cluster = await startKafkaCluster()
    topic = await makeTopic(cluster, { partitions: PARTITIONS, replicas: 3, configs: { 'min.insync.replicas': 2 } })
  }, 120_000)
  afterEach(async () => {
    for (const one of running.values())
      if (one.child.exitCode === null) {
        one.kill('SIGKILL')
        await one.done
      }
    running.clear()
    await feed?.end().catch(() => undefined)
    await cluster.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  function begin(name: string, args: readonly string[], input?: 'open'): Running {
    const one = start(
      [...args, '--metrics', `unix:${socket(name)}`, '--state', join(folder, `state-${name}`)],
      input === undefined ? {} : { input },
    )
    running.set(name, one)
    return one
  }
  async function inSync(wanted: number): Promise<void> {
    for (const giveUpAt = Date.now() + 90_000; ; await pause(200)) {
      assertAlive(running)
      const found = await leaders(cluster, topic).catch(() => [])
      if (found.length === PARTITIONS && found.every((each) => each.leader >= 0 && each.inSync === wanted)) return
      if (Date.now() > giveUpAt) throw new Error(`${wanted} replicas are not in sync: ${JSON.stringify(found)}`)
    }
  }
  async function leaderOf(partition: number): Promise<KafkaBroker> {
    const { leader } = (await leaders(cluster, topic))[partition]!
    return cluster.brokers.find(({ id }) => id === leader)!
  }

  it('leaders are killed in turn, then two of three: what is written and read goes on, or waits and says why', async () => {
    const uri = `kafka://${cluster.bootstrap}/${topic}`
    const writer = begin('writer', ['--from', '-', '--to', uri, 'key-separator=;', '--log-level', 'info'], 'open')
    const outs = ['alone', 'member'].map((name) => ({ name, out: join(folder, `${name}.ndjson`) }))
    for (const { name, out } of outs)
      begin(name, [
        '--from',
        uri,
        ...(name === 'member' ? [`group=${groupName()}`, 'session-timeout=10s', 'heartbeat-every=1s'] : []),
        '--to',
        `file:${out}`,
        'framing=envelope',
      ])
    feed = new KafkaFeed(writer)
    await untilDelivering(running, status)

    for (let partition = 0; partition < PARTITIONS; partition++) {
      const victim = await leaderOf(partition)
      await victim.kill()
      await untilDelivering(running, status)
      await victim.restart()
      await inSync(3)
    }

    // Records of which one replica alone would know are not taken by it.
    const [kept, ...others] = cluster.brokers
    for (const each of others) await each.kill()
    const said = (of: FlowStatus | undefined): string => `${of?.sinks[0]?.state} ${of?.sinks[0]?.error}`
    const wanted = /^backing off .*fewer replicas are in sync than the topic's min\.insync\.replicas/
    for (const giveUpAt = Date.now() + 60_000; ; await pause(50)) {
      assertAlive(running)
      const now = said(await status('writer'))
      if (wanted.test(now)) break
      if (Date.now() > giveUpAt) throw new Error(`the writer says: ${now}; ${writer.stderr()}`)
    }
    await Promise.all(others.map((each) => each.restart()))
    await inSync(3)
    await untilDelivering(running, status)
    expect(kept?.id).toBe(1)

    await feed.end()
    const { fed } = feed
    const { code } = await writer.done
    running.delete('writer')
    expect({
      code,
      wrong: writer
        .stderr()
        .split('\n')
        .filter((line) => /abandoned|may be there twice/.test(line)),
    }).toEqual({ code: 0, wrong: [] })
    expect(writer.stderr()).toMatch(/fewer replicas are in sync .*trying again/)
    const ended: (readonly [string, Running])[] = [['writer', writer]]
    for (const { name } of outs) {
      for (
        const giveUpAt = Date.now() + 60_000;
        ((await status(name))?.sinks[0]?.delivered ?? 0) < fed;
        await pause(100)
      ) {
        assertAlive(running)
        if (Date.now() > giveUpAt)
          throw new Error(
            `${name} does not catch up: ${JSON.stringify(await status(name))}; ${running.get(name)?.stderr()}`,
          )
      }
      const one = running.get(name)!
      one.kill('SIGTERM')
      expect((await one.done).code).toBe(0)
      // Whoever is still waited for is to be alive; this one is not any more.
      running.delete(name)
      ended.push([name, one])
    }
    const reading = spawn(
      kcat()!,
      ['-C', '-q', '-e', '-b', cluster.bootstrap, '-t', topic, '-o', 'beginning', '-f', '%k;%s\n'],
      { stdio: ['ignore', 'pipe', 'ignore'] },
    )
    expect(await scanRecords(reading.stdout, (line) => line.slice(0, line.indexOf(';')))).toEqual({
      count: fed,
      distinct: fed,
      outOfOrder: 0,
    })
    for (const { out } of outs)
      expect(await scanRecords(createReadStream(out), envelopeKey)).toEqual({
        count: fed,
        distinct: fed,
        outOfOrder: 0,
      })
    process.stderr.write(
      `kafka cluster: ${fed} records; ${ended
        .map(
          ([name, one]) =>
            `${name}: ${one
              .stderr()
              .split('\n')
              .filter((line) => /trying again|wait for it/.test(line))
              .map((line) => line.slice(0, 200))
              .join(' | ')}`,
        )
        .join('\n')}\n`,
    )
  }, 400_000)
})
