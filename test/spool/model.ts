/**
 * One random history of a spool on a disk that crashes, against a plain list of what was appended. What it holds the
 * spool to: every acknowledged append is there exactly once, in order, with equal bytes; of the others each is there as
 * a whole or not at all, for good; a sealed segment that was once visible stays the same object; each sink is served
 * all of it once from its cursor on; nothing is reported lost.
 */
import { createHash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { EntryBatch, LineBatch } from '../../src/core/batch'
import type { Entry, Gap } from '../../src/core/contract'
import type { SealedSegment, Spooled, SpoolReader } from '../../src/core/flow/ports'
import type { FileSystem } from '../../src/kit/file-system'
import { openSpool, type OpenedSpool } from '../../src/spool'
import { CrashDisk } from './crash-file-system'
import { Random } from './random'
import { collect, policy, silent, TestClock } from './support'

const HEADER = 16_384
const SINKS = { batches: ['kafka'], segments: ['archive'], both: ['kafka', 'archive'] } as const

interface Appended {
  readonly index: number
  readonly entries: readonly Entry[]
  readonly form: 'lines' | 'entries'
  readonly source: string
  readonly partition: string
  readonly last: string
  readonly receivedAt: number
  /** open: its fate is not known. there: acknowledged, or found after a crash. gone: not found after a crash. */
  state: 'open' | 'there' | 'gone'
  first: number
  /** Saved in the flow file since. */
  known: boolean
}
interface Flow {
  id?: string
  sequence: number
  clean: boolean
  acceptedThrough: number
  cursors: Record<string, number>
}

export class History {
  private readonly random: Random
  private readonly disk: CrashDisk
  private fs: FileSystem
  private clock: TestClock
  private opened!: OpenedSpool
  private readonly kind: keyof typeof SINKS
  private readonly sinks: readonly string[]
  private readonly appends: Appended[] = []
  private readonly gaps: { readonly gap: Gap; acked: boolean; known: boolean }[] = []
  private flow: Flow = { sequence: 0, clean: false, acceptedThrough: 0, cursors: {} }
  private readers = new Map<string, SpoolReader<Spooled | SealedSegment>>()
  private readonly delivered: Record<string, string[]> = {}
  private readonly objects = new Map<
    number,
    { readonly key: string; readonly sha256: string; readonly length: number }
  >()
  private dead = false
  private violation: Error | undefined
  private failed = false
  private epoch = 0
  private readonly framing: 'lines' | 'envelope'
  private readonly sealBytes: number
  private readonly sealAge: number
  private readonly maxBytes: number | undefined
  private readonly segmentBytes: number
  private readonly frameBytes: number
  /** Sequences below may have been given. */
  private given = 0
  readonly log: string[] = []

  constructor(seed: number) {
    const random = (this.random = new Random(seed))
    this.disk = new CrashDisk(random)
    this.disk.onCrash = () => {
      this.dead = true
    }
    this.fs = this.disk.boot()
    this.clock = new TestClock()
    this.kind = random.pick(['batches', 'segments', 'both'])
    this.sinks = SINKS[this.kind]
    for (const sink of this.sinks) {
      this.flow.cursors[sink] = 0
      this.delivered[sink] = []
    }
    this.framing = random.chance(0.3) ? 'envelope' : 'lines'
    this.sealBytes = random.pick([0, 40, 150, 400])
    this.sealAge = random.pick([0, 5000])
    this.maxBytes = random.chance(0.15) ? random.pick([1, 2 * HEADER, 4 * HEADER]) : undefined
    this.segmentBytes = HEADER + random.pick([1, 300, 1000])
    this.frameBytes = random.pick([1 << 20, 30, 60])
    if (random.chance(0.2)) this.disk.capacity = HEADER * (1 + random.below(4)) + random.below(2000)
  }

  async run(): Promise<void> {
    await this.reopen()
    for (let left = 5 + this.random.below(20); left > 0; left--) {
      await this.step()
      if (this.violation !== undefined) throw this.violation
      if (this.dead || this.failed) await this.crash()
    }
    await this.finish()
  }

  private note(what: string): void {
    this.log.push(what)
  }
  private fault(what: string): never {
    throw new Error(what)
  }

  private async step(): Promise<void> {
    const { random } = this
    const dice = random.below(100)
    if (dice < 40) {
      this.append()
      if (random.chance(0.6)) await settled()
    } else if (dice < 45) this.gap()
    else if (dice < 65) await this.deliver(random.pick(this.sinks))
    else if (dice < 70) {
      this.note('seal')
      this.opened.spool.seal('revoke').catch(() => undefined)
      if (random.chance(0.7)) await settled()
    } else if (dice < 74) {
      const ms = random.pick([10, 1000, 6000, 40_000_000])
      this.note(`advance ${ms}`)
      this.clock.advance(ms)
      await settled()
    } else if (dice < 77) {
      await settled()
      this.save()
    } else if (dice < 82) {
      this.disk.crashIn = 1 + random.below(25)
      this.note(`crash in ${this.disk.crashIn} calls`)
    } else if (dice < 87) {
      if (random.chance(0.5)) await settled()
      this.dead = true
    } else if (dice < 90) await this.cleanStop()
    else if (dice < 93) {
      this.disk.failSyncs = random.pick([1, 1, 1, 2])
      this.note(`the next ${this.disk.failSyncs} syncs fail`)
    } else if (dice < 94) {
      this.disk.failWrites = 1
      this.note('the next write fails')
    } else if (dice < 97) {
      this.disk.capacity = this.disk.used() + random.below(HEADER * 2)
      this.note(`room for ${this.disk.capacity - this.disk.used()}`)
    } else {
      this.disk.capacity = Infinity
      this.note('room for all')
      this.clock.advance(1100)
      await settled()
    }
  }

  private append(): void {
    const { random } = this
    const index = this.appends.length
    const form = random.chance(0.4) ? 'entries' : 'lines'
    const count = random.chance(0.08) ? 0 : 1 + random.below(4)
    const entries: Entry[] = Array.from({ length: count }, (_, record) => {
      const value = Buffer.from(`${index}.${record}${'~'.repeat(random.below(40))}`)
      if (form === 'lines') return { value }
      return {
        value,
        ...(random.chance(0.3) ? { key: Buffer.from([record, 0, 255]) } : {}),
        ...(random.chance(0.3)
          ? {
              headers: [
                ['h', BigInt(index)],
                ['i', null],
              ] as const,
            }
          : {}),
        ...(random.chance(0.3) ? { timestamp: index + 0.5 } : {}),
      }
    })
    const appended: Appended = {
      index,
      entries,
      form,
      source: random.pick(['s1', 's2']),
      partition: random.pick(['p1', 'p2']),
      last: `end of ${index}`,
      receivedAt: this.clock.now() + random.next(),
      state: 'open',
      first: -1,
      known: false,
    }
    this.appends.push(appended)
    this.given += count
    this.note(`append ${index}: ${count} ${form}`)
    const batch =
      form === 'entries'
        ? new EntryBatch(
            entries.map((entry) => ({
              ...entry,
              value: entry.value === null ? null : Buffer.from(entry.value),
              ...(entry.key === undefined ? {} : { key: Buffer.from(entry.key) }),
            })),
            100,
          )
        : new LineBatch(
            chunked(
              entries.map((entry) => Buffer.concat([entry.value ?? Buffer.alloc(0), Buffer.from('\n')])),
              random,
            ),
            count,
          )
    const epoch = this.epoch
    // Once it is acknowledged the source fills its buffers anew.
    const buffers =
      form === 'lines'
        ? batch.lines().chunks
        : batch.entries().flatMap(({ value, key }) => [value, key].filter((one): one is Buffer => Buffer.isBuffer(one)))
    this.opened.spool
      .append({
        source: appended.source,
        partition: { name: appended.partition, epoch: 1 },
        batch,
        last: appended.last,
        at: (record) => `${index}@${record}`,
        receivedAt: appended.receivedAt,
      })
      .then(
        ({ first, next }) => {
          if (epoch !== this.epoch) this.fault(`append ${index} was acknowledged by a process that is dead`)
          if (next - first !== count) this.fault(`append ${index} got ${next - first} sequences`)
          for (const buffer of buffers) buffer.fill('#')
          appended.state = 'there'
          appended.first = first
          if (count === 0 && first > this.opened.spool.head)
            this.fault(`append ${index} without records got sequence ${first}`)
          this.note(`acknowledged ${index} at ${first}`)
        },
        () => undefined,
      )
      .catch((error: unknown) => {
        this.violation = error as Error
      })
  }

  private gap(): void {
    const gap = {
      gap: { partition: 'p1', from: `gap ${this.gaps.length}`, to: 'then', why: 'closed' },
      acked: false,
      known: false,
    }
    this.gaps.push(gap)
    this.note(`gap ${this.gaps.length - 1}`)
    this.opened.spool.gap('s1', gap.gap).then(
      () => {
        gap.acked = true
      },
      () => undefined,
    )
  }

  /** One more for the sink, confirmed at once; the cursor is durable before anything is dropped. */
  private async deliver(sink: string): Promise<void> {
    const reader = this.readers.get(sink)
    if (reader === undefined) return
    const found = await now(reader)
    if (this.dead || found === undefined || found === null) return
    if ('kind' in found) await this.checkSegment(found)
    if (this.dead) return
    const texts =
      'kind' in found
        ? this.between(found.first, found.next).flatMap(textsOf)
        : found.batch.entries().map((entry) => String(entry.value))
    if (!('kind' in found)) this.checkFrame(found)
    this.delivered[sink]?.push(...texts)
    this.note(`${sink} confirmed ${found.first} to ${found.next}`)
    this.flow.cursors[sink] = found.next
    this.save()
    const dropped = this.opened.spool.drop(this.lowest())
    if (this.random.chance(0.7)) await dropped
    else dropped.catch(() => undefined)
  }
  private lowest(): number {
    return Math.min(...Object.values(this.flow.cursors))
  }
  private save(): void {
    const { spool, nextSequence, id } = this.opened
    // What the ledger has counted is what was acknowledged to it: the head may be further already.
    const acceptedThrough = Math.max(
      this.flow.acceptedThrough,
      ...this.appends.filter((one) => one.state === 'there').map((one) => one.first + one.entries.length),
    )
    this.flow = {
      ...this.flow,
      id,
      sequence: Math.max(spool.head, nextSequence, this.flow.sequence),
      acceptedThrough,
      clean: false,
    }
    for (const one of this.appends) if (one.state === 'there') one.known = true
    for (const one of this.gaps) if (one.acked) one.known = true
  }

  private between(first: number, next: number): readonly Appended[] {
    const found = this.appends.filter(
      (one) => one.state === 'there' && one.first >= first && one.first < next && one.entries.length > 0,
    )
    return found.sort((a, b) => a.first - b.first)
  }

  private checkFrame(frame: Spooled): void {
    const one = this.appendOf(frame)
    if (one.state === 'gone') this.fault(`append ${one.index} is back from the dead`)
    if (one.state === 'open') this.fault(`append ${one.index} is served at ${frame.first} before it was acknowledged`)
    this.checkEqual(one, frame, frame.first - one.first)
  }
  private appendOf(frame: Spooled): Appended {
    const text = String(frame.batch.entries()[0]?.value)
    return this.appends[Number(text.split('.')[0])] ?? this.fault(`a record nobody appended: ${text}`)
  }
  /** @param from  record of the append that the frame begins with */
  private checkEqual(one: Appended, frame: Spooled, from: number): void {
    const to = from + frame.batch.count
    if (!isDeepStrictEqual(frame.batch.entries().map(plain), one.entries.slice(from, to).map(plain)))
      this.fault(`append ${one.index} came out otherwise from record ${from} on`)
    if (
      frame.batch.form !== one.form ||
      frame.source !== one.source ||
      frame.partition !== one.partition ||
      frame.receivedAt !== one.receivedAt
    )
      this.fault(`the facts of append ${one.index} came out otherwise`)
    if (frame.at(0) !== this.positionOf(one, from, to))
      this.fault(`the position of append ${one.index} came out as ${frame.at(0)}`)
  }
  /** Records of lines have that of the last one in their frame. */
  private positionOf(one: Appended, record: number, to: number): string {
    return one.form === 'entries'
      ? `${one.index}@${record}`
      : to === one.entries.length
        ? one.last
        : `${one.index}@${to - 1}`
  }

  private async checkSegment(segment: SealedSegment): Promise<void> {
    const expected = Buffer.concat(this.between(segment.first, segment.next).flatMap((one) => this.rendered(one)))
    let content: Buffer
    const offset = this.random.chance(0.3) ? this.random.below(expected.length + 1) : 0
    try {
      content = await collect(segment.read(offset))
    } catch (error) {
      if (this.dead) return
      throw error
    }
    if (!content.equals(expected.subarray(offset)))
      this.fault(
        `segment ${segment.first} holds\n${content.toString()}\ninstead of\n${expected.subarray(offset).toString()}`,
      )
    if (segment.length !== expected.length || segment.sha256 !== createHash('sha256').update(expected).digest('hex'))
      this.fault(`segment ${segment.first}: length or sha256 are wrong`)
    if (segment.count !== this.between(segment.first, segment.next).reduce((sum, one) => sum + one.entries.length, 0))
      this.fault(`segment ${segment.first}: count ${segment.count} is wrong`)
    if (segment.count === 0) this.fault(`segment ${segment.first} is empty`)
    if (
      new Set(
        this.between(segment.first, segment.next).map((one) => new Date(one.receivedAt).toISOString().slice(0, 10)),
      ).size > 1
    )
      this.fault(`segment ${segment.first} spans two days`)
    const now = { key: segment.key, sha256: segment.sha256, length: segment.length }
    const before = this.objects.get(segment.first)
    if (before !== undefined && !isDeepStrictEqual(before, now))
      this.fault(`segment ${segment.first} was ${JSON.stringify(before)} and is ${JSON.stringify(now)}`)
    this.objects.set(segment.first, now)
  }
  private rendered(one: Appended): Buffer[] {
    return this.framing === 'lines' && one.form === 'lines'
      ? one.entries.map((entry) => Buffer.from(`${String(entry.value)}\n`))
      : one.entries.map((entry, index) => render(entry, one.form === 'lines' ? '' : `${one.index}@${index}`))
  }

  private async cleanStop(): Promise<void> {
    if (this.disk.capacity !== Infinity || this.maxBytes !== undefined) return
    this.note('clean stop')
    await settled()
    let ended: boolean | undefined
    this.opened.spool.end().then(
      () => {
        ended = true
      },
      () => {
        ended = false
      },
    )
    for (let turn = 0; ended === undefined && turn < 20; turn++) {
      await settled()
      this.clock.advance(1100)
    }
    if (ended !== true) {
      this.failed = true
      return
    }
    await this.opened.spool.close()
    this.save()
    this.flow = { ...this.flow, clean: true, sequence: Math.max(this.opened.spool.head, this.opened.nextSequence) }
    await this.boot(this.disk.kill())
  }

  private async crash(): Promise<void> {
    // What was durable when the machine stopped may still be acknowledged.
    await settled()
    const fs = this.random.chance(this.failed ? 0.3 : 0.7) ? this.disk.powerCut() : this.disk.kill()
    await this.boot(fs)
  }
  private async boot(fs: FileSystem): Promise<void> {
    this.epoch++
    this.fs = fs
    this.disk.failWrites = 0
    if (this.random.chance(0.8)) this.disk.failSyncs = 0
    this.clock = new TestClock(this.clock.now() + 1000)
    await this.reopen()
  }

  private async reopen(): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      this.dead = false
      this.failed = false
      if (attempt < 3 && this.random.chance(0.15)) this.disk.crashIn = 1 + this.random.below(30)
      try {
        const archive = {
          sealBytes: this.sealBytes,
          sealAge: this.sealAge,
          framing: this.framing,
          key: ({ receivedAt, sealedAt, id }: { receivedAt: number; sealedAt: number; id: string }) =>
            `${receivedAt}/${sealedAt}-${id}`,
        }
        this.opened = await openSpool({
          fs: this.fs,
          directory: '/spool',
          clock: this.clock,
          log: silent,
          ...(this.flow.id === undefined ? {} : { id: this.flow.id }),
          known: {
            sequence: this.flow.sequence,
            clean: this.flow.clean,
            acceptedThrough: this.flow.acceptedThrough,
            tail: this.lowest(),
          },
          policies: this.kind === 'batches' ? [] : [{ sink: 'archive', policy: policy(archive) }],
          segmentBytes: this.segmentBytes,
          reserve: 0,
          ...(this.maxBytes === undefined ? {} : { maxBytes: this.maxBytes }),
          frameBytes: this.frameBytes,
          render: (frame) =>
            frame.batch
              .entries()
              .map((entry, index) => render(entry, frame.batch.form === 'lines' ? '' : frame.at(index))),
        })
        this.note(
          `opened, next ${this.opened.nextSequence}, torn ${this.opened.recovered.tornBytes}, flow ${JSON.stringify(this.flow)}, files ${[...this.disk.contents()].map(([name, bytes]) => `${name}:${bytes.length}`).join(' ')}`,
        )
        await this.checkRecovered()
        if (!this.dead) break
      } catch (error) {
        if (!this.dead && (error as Error).name !== 'DiskFailed') throw error
        this.note(`opening failed: ${(error as Error).message}`)
      }
      this.fs = this.random.chance(0.7) ? this.disk.powerCut() : this.disk.kill()
    }
    // A start is saved before anything is read.
    this.flow = {
      ...this.flow,
      id: this.opened.id,
      clean: false,
      sequence: Math.max(this.flow.sequence, this.opened.nextSequence),
    }
    this.given = this.opened.nextSequence
    const { spool } = this.opened
    const epoch = this.epoch
    spool.failed.catch((error: unknown) => {
      if (epoch !== this.epoch) return
      this.note(`failed: ${(error as Error).message}`)
      this.failed = true
      if ((error as Error).name !== 'DiskFailed') this.violation = error as Error
    })
    this.readers = new Map(
      this.sinks.map((sink) => [
        sink,
        sink === 'kafka'
          ? spool.batches(sink, this.flow.cursors[sink] ?? 0)
          : spool.segments(sink, this.flow.cursors[sink] ?? 0),
      ]),
    )
  }

  private async checkRecovered(): Promise<void> {
    const { spool, recovered, foreign, nextSequence } = this.opened
    if (recovered.gaps.some((gap) => gap.lost)) this.fault(`lost: ${JSON.stringify(recovered.gaps)}`)
    if (foreign.length > 0) this.fault('foreign segments')
    const reader = spool.batches('check', 0)
    const frames: Spooled[] = []
    while (frames.reduce((sum, frame) => sum + frame.batch.count, 0) < spool.countFrom(0)) {
      const frame = await now(reader)
      if (this.dead) return
      if (frame === undefined || frame === null)
        this.fault(
          `the spool counts ${spool.countFrom(0)} records and serves ${frames.reduce((sum, one) => sum + one.batch.count, 0)}`,
        )
      frames.push(frame)
    }
    const found = new Map<number, { readonly first: number; count: number }>()
    let previous = -1
    let next = 0
    for (const frame of frames) {
      const one = this.appendOf(frame)
      const there = found.get(one.index)
      this.checkEqual(one, frame, there?.count ?? 0)
      if (there === undefined ? one.index <= previous : one.index !== previous)
        this.fault(`append ${one.index} comes after ${previous}`)
      if (frame.first < next || (there !== undefined && frame.first !== next))
        this.fault(`sequence ${frame.first} comes after ${next - 1}`)
      if (one.state === 'gone') this.fault(`append ${one.index} is back from the dead`)
      if (there === undefined && one.state === 'there' && one.first !== frame.first)
        this.fault(`append ${one.index} was ${one.first} and is ${frame.first}`)
      previous = one.index
      next = frame.next
      if (there === undefined) found.set(one.index, { first: frame.first, count: frame.batch.count })
      else there.count += frame.batch.count
    }
    for (const [index, { count }] of found)
      if (count !== this.appends[index]?.entries.length)
        this.fault(`of append ${index} only ${count} records are there`)
    // With nothing ever written, a spool may begin at 0 again.
    if (nextSequence < next || (!this.flow.clean && nextSequence > 0 && nextSequence < this.given))
      this.fault(`sequence ${nextSequence} would be given again`)
    for (const one of this.appends) {
      const frame = found.get(one.index)
      if (one.entries.length === 0) {
        if (one.state === 'open') one.state = 'gone'
        continue
      }
      if (one.state === 'there') {
        if (frame === undefined && one.first >= this.lowest())
          this.fault(`append ${one.index}, acknowledged at ${one.first}, is lost`)
      } else if (frame === undefined) one.state = 'gone'
      else {
        one.state = 'there'
        one.first = frame.first
      }
    }
    const since = this.appends
      .filter((one) => one.state === 'there' && one.first >= this.flow.acceptedThrough && found.has(one.index))
      .reduce((sum, one) => sum + one.entries.length, 0)
    if (recovered.recordsSince !== since)
      this.fault(`${recovered.recordsSince} records since ${this.flow.acceptedThrough} instead of ${since}`)
    for (const { gap, acked, known } of this.gaps)
      if (acked && !known && !recovered.gaps.some((one) => one.from === gap.from))
        this.fault(`${gap.from} is forgotten`)
    this.checkPositions()
  }

  /**
   * A position is that of the newest append of its partition that is there, or, for appends without records, may be
   * that of an older one only if that was never acknowledged.
   */
  private checkPositions(): void {
    for (const source of ['s1', 's2']) {
      for (const partition of ['p1', 'p2']) {
        const own = this.appends.filter((one) => one.source === source && one.partition === partition)
        const newest = own.findLast((one) => one.state === 'there' && !one.known)
        const position = this.opened.spool.position(source, partition)
        if (newest === undefined) continue
        const at = own.findIndex((one) => one.last === position)
        if (at < own.indexOf(newest))
          this.fault(
            `the position of ${source} ${partition} is ${position ?? 'unknown'}, and ${newest.last} was acknowledged`,
          )
      }
    }
  }

  /** All that is there reaches every sink once. */
  private async finish(): Promise<void> {
    this.disk.capacity = Infinity
    for (let attempt = 0; ; attempt++) {
      if (attempt > 20) this.fault('the history does not come to its end')
      // A call that the machine is to stop in may be under way.
      await settled()
      this.disk.crashIn = Infinity
      this.disk.failSyncs = 0
      this.disk.failWrites = 0
      if (this.dead || this.failed) {
        await this.crash()
        continue
      }
      const ended = this.opened.spool.end().then(
        () => true,
        () => false,
      )
      let done: boolean | undefined
      void ended.then((value) => {
        done = value
      })
      for (let turn = 0; done === undefined && turn < 200; turn++) {
        for (const sink of this.sinks) await this.deliver(sink)
        this.clock.advance(1100)
        await settled()
      }
      if (done === undefined) this.fault('the spool does not end')
      if (!done) {
        this.failed = true
        continue
      }
      for (const sink of this.sinks) {
        for (;;) {
          const before = this.flow.cursors[sink]
          await this.deliver(sink)
          if (this.flow.cursors[sink] === before) break
        }
        const last = await now(this.readers.get(sink)!)
        if (last !== null) this.fault(`${sink} does not end`)
      }
      break
    }
    const all = this.appends.filter((one) => one.state === 'there').flatMap(textsOf)
    for (const sink of this.sinks)
      if (!isDeepStrictEqual(this.delivered[sink], all))
        this.fault(`${sink} was served ${this.delivered[sink]?.join(' ')}\ninstead of ${all.join(' ')}`)
    await settled()
    if (this.opened.spool.countFrom(this.lowest()) !== 0)
      this.fault('all is delivered and the spool still counts records')
    await this.opened.spool.close()
  }
}

function textsOf(one: Appended): readonly string[] {
  return one.entries.map((entry) => String(entry.value))
}
function plain(entry: Entry): unknown {
  return { ...entry, value: entry.value?.toString('latin1'), key: entry.key?.toString('latin1') }
}
function render(entry: Entry, position: string): Buffer {
  return Buffer.from(
    `${JSON.stringify([entry.value?.toString('latin1'), entry.key?.toString('latin1'), entry.headers?.map(([name, value]) => [name, String(value)]), entry.timestamp, position])}\n`,
  )
}
function chunked(parts: readonly Buffer[], random: Random): readonly Buffer[] {
  if (parts.length > 1 && random.chance(0.3)) return [Buffer.concat(parts.slice(0, 1)), Buffer.concat(parts.slice(1))]
  return parts.length === 0 ? [] : [Buffer.concat(parts)]
}
/** The disk answers within microtasks: after one turn of the loop all that can happen has happened. */
function settled(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}
/** What the reader has now; undefined where it would wait. */
async function now<T>(reader: SpoolReader<T>): Promise<T | null | undefined> {
  const stop = new AbortController()
  const late = new Error('nothing there')
  setImmediate(() => {
    stop.abort(late)
  })
  try {
    return await reader.next(stop.signal)
  } catch (error) {
    if (
      error === late ||
      ['this process is dead', 'the machine stopped'].some((text) => (error as Error).message.includes(text))
    )
      return undefined
    throw error
  }
}
