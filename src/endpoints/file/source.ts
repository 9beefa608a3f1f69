import * as path from 'node:path'
import { TrailingData } from '../../codec/compression'
import type { Delivery, Position, Source, SourceContext } from '../../core/contract'
import { Disconnected, Fatal, lineOf, ManifoldError, Refused } from '../../core/errors'
import { closeQuietly } from '../../kit/file-system'
import { displayName } from '../../kit/file-names'
import { isGlob, unescaped } from '../../kit/glob-pattern'
import { unlessAborted, Notifier } from '../../kit/signal'
import type { CreateSource, OptionsOf } from '../../options/define'
import { reread } from './reread'
import { unreadableFolders } from './candidates'
import { isCutShort, isDamage, ContentChanged } from './decompressor'
import { FileSet } from './file-set'
import type { options } from './options'
import { decodePosition, encodePosition, type FilePosition } from './position'
import { startOf } from './start'
import { FileTruncated, FileMoved, type Tail } from './tail'
import { Watcher } from './watcher'

export const create: CreateSource<typeof options> = ({ options: given, uri }) => new FileSource(uri.path, given)
export type SourceOptions = Pick<
  OptionsOf<typeof options>,
  'framing' | 'maxRecord' | 'compression' | 'follow' | 'start' | 'pollEvery'
>

/**
 * A file that matches no path any more may still be written by a process that has it open. It is dropped after this
 * many milliseconds without new data.
 */
const UNMATCHED_GRACE_MS = 10_000
/** At most about this many files are open at once, because each needs memory. */
const MAX_OPEN = 16
/** Changed names cause a scan at most once in this many milliseconds. Polling comes in addition. */
const MIN_SCAN_GAP_MS = 100
/** After this many bytes an open file is closed for one that waits. */
const TURN_BYTES = 16 * 1024 * 1024

export class FileSource implements Source {
  private set: FileSet | undefined
  private context: SourceContext | undefined
  private opens = 0
  private readonly changes = new Notifier()
  private watcher: Watcher | undefined
  private poll: { stop(): void } | undefined
  private isScanDue = false
  /** Files that could not be read to their end, and were not reported yet. */
  private unreportedFaults: { readonly name: string; readonly offset: number; readonly why: string }[] = []
  /** The sizes of files that were reported. */
  private readonly reportedSizes = new Map<string, number>()
  private scannedAt = 0
  /** `--until end` stops at these sizes. */
  private stopSizes: ReadonlyMap<string, number> | undefined

  constructor(
    private readonly pattern: string,
    private readonly given: SourceOptions,
  ) {}

  async open(context: SourceContext): Promise<void> {
    const { given, pattern } = this
    const known = new Map<string, FilePosition>()
    for (const name of context.resumable()) {
      const position = decodePosition(context.resume(name) ?? '')
      if (position !== undefined) known.set(name, position)
      else context.log.warn(`the stored position of ${name} cannot be understood: it is read from its beginning`)
    }
    const before = known.size
    const { compression, framing, maxRecord, follow } = given
    this.context = context
    this.set = new FileSet(
      {
        pattern,
        compression,
        framing,
        maxRecord,
        follow,
        start: startOf(given.start),
        epoch: ++this.opens,
        log: context.log,
        now: () => context.clock.now(),
        monotonic: () => context.clock.monotonic(),
      },
      known,
    )
    await this.scan(this.set)
    for (const closed of await unreadableFolders(pattern))
      context.log.warn(`${closed} may not be read: whatever matches ${pattern} in it is left out`)
    if (this.set.tails.length === 0 && before === 0) {
      if (!follow) throw new Refused(`no file matches ${pattern}`)
      context.log.warn(`no file matches ${pattern} yet; waiting for one`)
    }
    if (follow) this.startWatching(context, this.set)
  }

  private startWatching({ clock }: SourceContext, set: FileSet): void {
    this.watcher = new Watcher((file, names) => {
      // A folder with thousands of changing names is scanned only now and then.
      if (names && clock.monotonic() - this.scannedAt >= MIN_SCAN_GAP_MS) this.isScanDue = true
      for (const tail of set.tails) if (tail.candidate.path === file) tail.mayHaveData = true
      this.changes.notify()
    })
    this.watchFolders(set)
    this.poll = clock.every(this.given.pollEvery, () => {
      this.isScanDue = true
      this.changes.notify()
    })
  }

  private watchFolders(set: FileSet): void {
    this.watcher?.folders(
      new Set([folderOf(this.pattern), ...set.tails.map((tail) => path.dirname(tail.candidate.path))]),
    )
  }

  async read(signal: AbortSignal): Promise<Delivery | null> {
    const { set } = this
    if (set === undefined) return null
    for (;;) {
      if (signal.aborted) throw signal.reason
      const startDelivery = set.startDeliveries.shift()
      if (startDelivery !== undefined) return this.recordPosition(set, startDelivery)
      for (const tail of this.dueTails(set)) {
        if (!tail.isOpen) await this.closeIdleFile(set)
        const delivery = await this.next(set, tail, signal)
        if (delivery === undefined) continue
        // All other files come before this one is read again.
        if (this.given.follow) {
          set.tails = [...set.tails.filter((other) => other !== tail), tail]
          if (tail.bytesSinceOpen > TURN_BYTES && set.tails.some((other) => !other.isOpen && other.mayHaveData))
            await tail.suspend()
        }
        return this.recordPosition(set, delivery)
      }
      if (this.isFinished(set)) {
        this.reportFaults()
        return null
      }
      if (this.given.follow && this.dueTails(set).length === 0) {
        this.reportFaults()
        await unlessAborted(this.changes.wait(), signal)
        await this.handleChanges(set)
      }
    }
  }

  private dueTails(set: FileSet): readonly Tail[] {
    const due = set.tails.filter((tail) => tail.mayHaveData && tail.isPredecessorRead)
    if (!this.given.follow) return due.slice(0, 1)
    const open = due.filter((tail) => tail.isOpen)
    return [...open, ...due.filter((tail) => !tail.isOpen).slice(0, Math.max(0, MAX_OPEN - open.length))]
  }

  /**
   * Closes an idle file before another one is opened. A file that matches no path any more stays open, because it could
   * not be opened again.
   */
  private async closeIdleFile(set: FileSet): Promise<void> {
    const open = set.tails.filter((tail) => tail.isOpen)
    if (open.length < MAX_OPEN) return
    const resting = open.filter((tail) => !tail.mayHaveData && tail.unmatchedSince === undefined)
    for (const tail of resting.slice(0, open.length - MAX_OPEN + 1)) await tail.suspend()
  }

  private isFinished(set: FileSet): boolean {
    if (!this.given.follow) return set.tails.length === 0
    return (
      this.stopSizes !== undefined &&
      set.tails.every((tail) => tail.offset >= (this.stopSizes?.get(tail.key) ?? 0) || !tail.mayHaveData)
    )
  }

  private recordPosition(set: FileSet, delivery: Delivery): Delivery {
    const position = decodePosition(delivery.last)
    if (position !== undefined) set.known.set(delivery.partition.name, position)
    this.reportFaults()
    return delivery
  }

  /** Returns the next delivery of a file, or undefined if it has no more for now. */
  private async next(set: FileSet, tail: Tail, signal: AbortSignal): Promise<Delivery | undefined> {
    const { follow } = this.given
    const name = tail.candidate.path
    try {
      // A change from here on counts for the next read.
      tail.mayHaveData = false
      tail.atEnd = !(await tail.wait(signal))
      tail.mayHaveData ||= !tail.atEnd
      if (!tail.atEnd) return await tail.take(false)
      const isFinal = !follow || tail.candidate.kind === 'stream' || tail.unmatchedSince === -Infinity
      const rest = await tail.take(isFinal)
      if (rest !== undefined) {
        tail.mayHaveData = true
        return rest
      }
      if (isFinal) await set.drop(tail)
    } catch (error) {
      tail.mayHaveData = true
      if (signal.aborted) throw error
      if (error instanceof FileTruncated) await this.scan(set)
      else if (error instanceof FileMoved) {
        await this.scan(set)
        if (tail.candidate.path === name && set.tails.includes(tail)) {
          this.context?.log.warn(`${displayName(name)} went away before it was read to its end`)
          await set.drop(tail)
        }
      } else if (error instanceof ContentChanged) {
        this.context?.log.info(`${displayName(name)} was written anew: it is read from its beginning`)
        set.known.delete(tail.partition.name)
        await set.drop(tail)
        await this.scan(set)
      } else if (follow && isCutShort(error)) {
        // The file is still being written, and is read again when it has grown.
        tail.mayHaveData = false
        await tail.suspend()
      } else if (isDamage(error) || ['EACCES', 'EPERM', 'EIO'].includes((error as NodeJS.ErrnoException).code ?? ''))
        return this.skipUnreadable(set, tail, error)
      else throw faultOf(name, error)
    }
    return undefined
  }

  /**
   * Skips a file that cannot be read, so that it does not stop the others. It is named, and its missing part becomes a
   * gap. It returns the last part that could be read.
   */
  private async skipUnreadable(set: FileSet, tail: Tail, error: unknown): Promise<Delivery | undefined> {
    const { path: name, size } = tail.candidate
    if (error instanceof ManifoldError) throw error
    const rest = error instanceof TrailingData ? await tail.takeRest() : undefined
    if (rest !== undefined) return rest
    const fault = faultOf(name, error)
    if (this.reportedSizes.get(tail.key) !== size)
      this.unreportedFaults.push({ name: tail.partition.name, offset: tail.offset, why: fault.message })
    this.reportedSizes.set(tail.key, size)
    tail.unreadable = isDamage(error) ? 'damaged' : 'refused'
    if (!this.given.follow || tail.unmatchedSince === -Infinity) await set.drop(tail)
    else {
      tail.mayHaveData = false
      await tail.suspend()
    }
    // If nothing at all can be read, the line is probably wrong.
    if (set.known.size === 0 && set.tails.every(({ unreadable }) => unreadable !== undefined)) throw fault
    if (set.known.size > 0) this.reportFaults()
    return undefined
  }

  private reportFaults(): void {
    for (const { name, offset, why } of this.unreportedFaults.splice(0))
      this.context?.gap({ partition: name, from: `${name}:${offset}`, to: 'its end', why })
  }

  /** Handles changes after a notification or a poll. */
  private async handleChanges(set: FileSet): Promise<void> {
    if (this.isScanDue) {
      this.isScanDue = false
      await this.scan(set)
      this.watchFolders(set)
      // A change of permissions changes neither size nor time, so refused files are tried again.
      for (const tail of set.tails) if (tail.unreadable === 'refused') tail.mayHaveData = true
    }
    const now = this.context?.clock.monotonic() ?? 0
    for (const tail of set.tails) {
      if (tail.unmatchedSince === undefined || tail.mayHaveData) continue
      if (now - tail.unmatchedSince >= UNMATCHED_GRACE_MS || (await tail.linkCount()) === 0) {
        tail.unmatchedSince = -Infinity
        tail.mayHaveData = true
      }
    }
    const idle = set.tails.filter((tail) => tail.isOpen && !tail.mayHaveData && tail.unmatchedSince === undefined)
    for (const tail of idle.slice(0, Math.max(0, idle.length - MAX_OPEN))) await tail.suspend()
  }

  private async scan(set: FileSet): Promise<void> {
    this.scannedAt = this.context?.clock.monotonic() ?? 0
    try {
      await set.scan()
    } catch (error) {
      throw error instanceof ManifoldError ? error : faultOf(this.pattern, error)
    }
    this.context?.gauge('files', set.tails.length)
  }

  async ends(): Promise<ReadonlyMap<string, Position | null>> {
    const tails = this.set?.tails ?? []
    this.stopSizes = new Map(tails.map(({ key, candidate }) => [key, candidate.size]))
    return Promise.resolve(
      new Map(
        tails.map((tail) => [
          tail.partition.name,
          tail.candidate.size === 0 ? null : encodePosition(tail.position(tail.candidate.size, {})),
        ]),
      ),
    )
  }

  again(name: string, from: Position | undefined, to: Position, signal: AbortSignal): AsyncIterable<Delivery> {
    return reread({ pattern: this.pattern, ...this.given }, name, from, to, signal)
  }

  /** The state of the flow keeps the position of a file. */
  commit(): Promise<void> {
    return Promise.resolve()
  }

  async close(): Promise<void> {
    this.poll?.stop()
    this.watcher?.close()
    await closeQuietly(this.set)
    this.set = this.poll = this.watcher = undefined
  }
}

/** Returns the lowest folder that the pattern names literally. */
function folderOf(pattern: string): string {
  let folder = path.dirname(path.resolve(pattern))
  while (isGlob(folder)) folder = path.dirname(folder)
  return unescaped(folder)
}

function faultOf(path: string, error: unknown): Error {
  const name = displayName(path)
  if (error instanceof ManifoldError) return error
  const { code, syscall } = error as NodeJS.ErrnoException
  const facts = { cause: error }
  if (code === 'EACCES' || code === 'EPERM') return new Refused(`${name} may not be read: permission denied`, facts)
  if (code === 'EMFILE' || code === 'ENFILE')
    return new Disconnected(`${name} cannot be opened: too many files are open`, facts)
  if (syscall !== undefined) return new Disconnected(`reading ${name} failed: ${lineOf(error)}`, facts)
  // This is an error of zlib about the content, which no retry can change.
  return new Fatal(`${name}: ${lineOf(error)}; mend or move it, or say what it is with compression=`, facts)
}
