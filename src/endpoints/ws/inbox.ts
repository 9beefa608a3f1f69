/**
 * What a connection has received and nobody has read yet.
 *
 * Messages lie one after the other in large blocks, each with a byte for its terminator, so that a read hands over what
 * is there as it lies. Per message this costs a copy and a note of where it ends; one search over all of them finds out
 * whether any holds a newline, and only then are the terminators set. Where one does, it cannot lie so: it is kept
 * apart, the delivery that holds it has the form of entries, and from then on each message is looked at. What was
 * handed over is not written again before it was released; blocks whose every delivery was are filled anew.
 */
import { createHash } from 'node:crypto'
import { EMPTY, EntryBatch, LineBatch } from '../../core/batch'
import type { Batch, Entry, Unfit } from '../../core/contract'
import { formatSize } from '../../kit/sizes'

const NEWLINE = 0x0a
const BLOCK = 256 * 1024
/** So many messages are searched together. */
const MOST_ENDS = 8192
/** A larger message gets a buffer of its own: it would leave too much of a block unused. */
const OWN = 64 * 1024
/** A read returns about this much. */
const READ = 1024 * 1024
/** At this much waiting the connection is to be paused, at half of it resumed. */
export const INBOX_BOUND = 8 * 1024 * 1024
/** Blocks kept for filling anew. */
const MOST_SPARE = 16
/** What is kept of a message that is too large. */
export const HEAD = 64 * 1024

export type Misfit = Omit<Unfit, 'position'>
export interface Taken {
  readonly batch: Batch
  /** Follows the batch. */
  readonly unfit?: Misfit
  /** When its first message arrived, by the monotonic clock. */
  readonly receivedAt: number
  /** Nobody looks at the batch's bytes any more. */
  readonly release?: () => void
}
/** `held` counts the runs in it that were not released. */
interface Block {
  readonly bytes: Buffer
  held: number
}
interface Run {
  readonly receivedAt: number
  readonly bytes: number
  /** Where it lies, if in a block that may be filled anew. */
  readonly block?: Block
  readonly what:
    | { readonly lines: Buffer; readonly count: number }
    | { readonly message: Buffer }
    | { readonly unfit: Misfit }
}

export interface InboxParts {
  readonly maxRecord: number
  now(): number
  /** More waits than may: called with everything that comes on top. */
  full(): void
  /** Something has arrived: once a turn of the event loop, after all that arrived in it. */
  arrived(): void
}

export class Inbox {
  private block: Buffer = Buffer.allocUnsafeSlow(0)
  private holder: Block = { bytes: this.block, held: 0 }
  private readonly spare: Buffer[] = []
  /** Of the block: [from, to) holds `count` messages nobody has taken, the first of them since `since`. */
  private from = 0
  private to = 0
  private count = 0
  private since = 0
  /** Where their terminators belong, as long as none is looked at. */
  private readonly ends = new Uint32Array(MOST_ENDS)
  /** A newline was found: each message is looked at, and terminated at once. */
  private careful = false
  private runs: Run[] = []
  private sealed = 0
  private ticking = false
  /** Messages, since the beginning. */
  received = 0
  /** Of these: taken. */
  taken = 0

  /** Bytes of a message that goes in without a look. */
  private readonly unlooked: number

  constructor(private readonly parts: InboxParts) {
    this.unlooked = Math.min(OWN, parts.maxRecord)
  }

  /** Bytes that wait. */
  get waiting(): number {
    return this.sealed + this.to - this.from
  }
  get empty(): boolean {
    return this.count === 0 && this.runs.length === 0
  }

  /** Copies the message. */
  add(data: Buffer): void {
    this.received++
    if (!this.ticking) {
      this.ticking = true
      setImmediate(() => {
        this.tick()
      })
    }
    const { length } = data
    if (this.careful || length > this.unlooked) {
      this.addCarefully(data)
      return
    }
    if (this.to + length >= this.block.length || this.count === MOST_ENDS) {
      this.turn()
      if (this.isCareful()) {
        this.addCarefully(data)
        return
      }
    }
    if (this.count === 0) this.since = this.parts.now()
    this.block.set(data, this.to)
    const end = this.to + length
    // Anything but a newline, until it is known that there is no other.
    this.block[end] = 0
    this.ends[this.count++] = end
    this.to = end + 1
  }

  /** What has arrived, up to about 1 MiB; ends after a message that is too large. */
  take(): Taken | undefined {
    if (this.sealed < READ) this.seal()
    const first = this.runs[0]
    if (first === undefined) return undefined
    let bytes = 0
    let taken = 0
    let unfit: Misfit | undefined
    for (const run of this.runs) {
      if (taken > 0 && bytes + run.bytes > READ) break
      bytes += run.bytes
      taken++
      this.taken += 'lines' in run.what ? run.what.count : 1
      if ('unfit' in run.what) {
        unfit = run.what.unfit
        break
      }
    }
    const runs = this.runs.splice(0, taken)
    this.sealed -= bytes
    return {
      batch: batchOf(runs),
      receivedAt: first.receivedAt,
      release: () => {
        this.release(runs)
      },
      ...(unfit === undefined ? {} : { unfit }),
    }
  }

  private tick(): void {
    this.ticking = false
    this.parts.arrived()
  }

  /** Sealing may have found a newline. */
  private isCareful(): boolean {
    return this.careful
  }

  private turn(): void {
    this.seal()
    if (this.block.length - this.to > OWN) return
    this.renew()
  }

  private renew(): void {
    const old = this.holder
    this.block = this.spare.pop() ?? Buffer.allocUnsafeSlow(BLOCK)
    this.holder = { bytes: this.block, held: 0 }
    this.from = this.to = this.count = 0
    this.keep(old)
  }

  private release(runs: readonly Run[]): void {
    for (const { block } of runs) {
      if (block === undefined) continue
      block.held--
      if (block !== this.holder) this.keep(block)
    }
  }

  private keep({ bytes, held }: Block): void {
    if (held === 0 && bytes.length === BLOCK && this.spare.length < MOST_SPARE) this.spare.push(bytes)
  }

  private addCarefully(data: Buffer): void {
    const { length } = data
    if (!this.careful) this.seal()
    const newline = data.indexOf(NEWLINE)
    if ((newline !== -1 && newline !== length - 1) || length > this.parts.maxRecord) {
      this.addApart(data)
      return
    }
    // A newline at its end is the terminator already.
    const size = newline === -1 ? length + 1 : length
    if (size > OWN) {
      this.addOwn(data, size)
      return
    }
    if (this.to + size > this.block.length) this.turn()
    if (this.count === 0) this.since = this.parts.now()
    this.block.set(data, this.to)
    this.to += size
    this.block[this.to - 1] = NEWLINE
    this.count++
    // Unless all are looked at, its neighbours are searched without it.
    if (!this.careful) this.close()
  }

  private addOwn(data: Buffer, size: number): void {
    this.seal()
    const lines = Buffer.allocUnsafeSlow(size)
    lines.set(data)
    lines[size - 1] = NEWLINE
    this.push({ receivedAt: this.parts.now(), bytes: size, what: { lines, count: 1 } })
  }

  private addApart(data: Buffer): void {
    this.seal()
    const { maxRecord, now } = this.parts
    if (data.length > maxRecord) {
      const unfit: Misfit = {
        why: `a message of ${formatSize(data.length)} is larger than max-record=${formatSize(maxRecord)}`,
        head: Buffer.from(data.subarray(0, HEAD)),
        length: data.length,
        sha256: createHash('sha256').update(data).digest('hex'),
      }
      this.push({ receivedAt: now(), bytes: unfit.head.length, what: { unfit } })
    } else this.push({ receivedAt: now(), bytes: data.length, what: { message: Buffer.from(data) } })
  }

  private seal(): void {
    if (this.count === 0) return
    if (!this.careful) {
      const { block, from, to, count, ends, since } = this
      if (block.subarray(from, to).includes(NEWLINE)) {
        this.careful = true
        // The old block is read from here: it must not be the next one.
        this.holder.held++
        this.renew()
        for (let i = 0, at = from; i < count; i++) {
          const end = ends[i] ?? at
          this.addCarefully(block.subarray(at, end))
          at = end + 1
          this.since = since
        }
        if (this.count === 0) return
      } else for (let i = 0; i < count; i++) block[ends[i] ?? from] = NEWLINE
    }
    this.close()
  }

  private close(): void {
    this.holder.held++
    this.push({
      receivedAt: this.since,
      bytes: this.to - this.from,
      block: this.holder,
      what: { lines: this.block.subarray(this.from, this.to), count: this.count },
    })
    this.from = this.to
    this.count = 0
  }

  private push(run: Run): void {
    this.runs.push(run)
    this.sealed += run.bytes
    if (this.sealed >= INBOX_BOUND) this.parts.full()
  }
}

function batchOf(runs: readonly Run[]): Batch {
  const chunks: Buffer[] = []
  let count = 0
  let retained = 0
  let apart = false
  for (const { what, bytes } of runs) {
    if ('unfit' in what) continue
    retained += bytes
    if ('lines' in what) {
      chunks.push(what.lines)
      count += what.count
    } else apart = true
  }
  if (!apart) return count === 0 ? EMPTY : new LineBatch(chunks, count)
  const entries: Entry[] = []
  for (const { what } of runs) {
    if ('lines' in what) for (const entry of new LineBatch([what.lines], what.count).entries()) entries.push(entry)
    else if ('message' in what) entries.push({ value: what.message })
  }
  return new EntryBatch(entries, retained)
}
