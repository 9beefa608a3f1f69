/** One source of a run: the pump that reads it, what was committed of it, and how far it is complete. */
import { linkedAbort } from '../../kit/signal'
import type { Gaps } from '../accounting/gaps'
import type { Delivery, Gap, Partition, Position } from '../contract'
import type { AckWindow } from '../delivery/ack-window'
import { Committer } from '../delivery/committer'
import type { Intake } from '../delivery/intake'
import type { PendingCommits } from '../delivery/pending-commits'
import { readWatermarkOf } from '../delivery/read-watermark'
import { SourcePump, type SourceHost } from '../delivery/source-pump'
import type { SpoolBackpressure } from '../delivery/spool-backpressure'
import { revokePartition } from '../supervision/revoke-partition'
import { Supervisor } from '../supervision/supervisor'
import type { FlowParts, SourcePart } from './flow-parts'
import type { RunControl } from './run-control'
import type { TrackedWork } from './tracked-work'

/**
 * Where a commit is one frame and the peer holds what is not committed at some cost: a RabbitMQ queue is drained a
 * thirtieth more slowly where each acknowledgement waits for 5 ms.
 */
const PROMPT_MS = 1
/** A position that is kept here is stored this often, one upstream once a second. */
const HERE_MS = 100
const UPSTREAM_MS = 1000
/** How often it is stored that a feed has sent nothing. */
const SILENCE_MS = 10_000
/** The reader of our output may end with us, as by ^C: for so long it may yet read what lies in the pipe. */
export const READER_MS = 1000

export interface SourceRunParts {
  readonly flow: FlowParts
  readonly control: RunControl
  readonly gaps: Gaps
  readonly intake: Intake
  readonly work: TrackedWork
  readonly window: AckWindow
  readonly pendingCommits: PendingCommits
  /** With a spool. */
  readonly backpressure: SpoolBackpressure | undefined
}

export class SourceRun implements SourceHost {
  readonly supervisor: Supervisor
  readonly pump: SourcePump
  readonly committer: Committer
  /** The newest position of each partition, for a source whose position is kept here. */
  readonly positions: Map<string, Position>
  /** These positions were committed upstream in this run. */
  readonly released = new Map<string, Position>()
  /** All that was sent until then, epoch milliseconds, is durable. */
  completeUntil: number | undefined
  private savedUntil = 0
  private hasOpened = false

  constructor(
    readonly part: SourcePart,
    private readonly parts: SourceRunParts,
  ) {
    const { clock, log, spool, stored, until, sinks } = parts.flow
    const [first] = sinks
    this.supervisor = new Supervisor(part.id, 'source', part.label, part.supervision, clock, log)
    this.positions = new Map(Object.entries(stored?.sources[part.id]?.positions ?? {}))
    this.completeUntil = stored?.sources[part.id]?.completeUntil
    this.committer = new Committer({
      label: part.label,
      clock,
      log,
      watermark:
        spool === undefined && part.position !== 'none' && first !== undefined
          ? readWatermarkOf(first.sink, clock)
          : undefined,
      everyMs: part.commitOnceSpooled ? PROMPT_MS : part.position === 'here' ? HERE_MS : UPSTREAM_MS,
      commit: (partition, position) => this.commit(partition, position),
    })
    this.pump = new SourcePump({
      source: part.source,
      supervisor: this.supervisor,
      live: part.live && spool !== undefined,
      clock,
      log,
      until,
      signal: parts.control.cut,
      stopReading: parts.control.stopReading,
      host: this,
    })
  }

  /** All records of the partition up to here are delivered: the source, or the flow file, is told. */
  private async commit(partition: Partition, position: Position): Promise<void> {
    const { part, parts } = this
    if (part.position === 'upstream') {
      await part.source.commit(partition, position)
      this.released.set(partition.name, position)
      parts.gaps.committed(part, partition.name, position)
    } else if (part.position === 'here') {
      this.positions.set(partition.name, position)
      parts.control.touch()
    }
  }

  stored(partition: string): Position | undefined {
    return this.parts.flow.spool?.position(this.part.id, partition) ?? this.positions.get(partition)
  }
  storedPartitions(): readonly string[] {
    return [...this.positions.keys(), ...(this.parts.flow.spool?.partitions(this.part.id) ?? [])]
  }
  lastReceivedAt(): number | undefined {
    const { spool, stored } = this.parts.flow
    if (spool === undefined) return undefined
    return stored?.sources[this.part.id]?.completeUntil ?? spool.lastReceivedAt(this.part.id)
  }

  async opening(): Promise<void> {
    const { flow, control } = this.parts
    if (this.hasOpened || flow.spool === undefined || !this.part.live) return
    this.hasOpened = true
    // Killed from here on, it has missed what it would have read: the next run's gap begins now. A feed sends as soon
    // as it is connected, so this is stored before.
    this.completeUntil ??= flow.clock.now()
    await control.flush().catch((error: unknown) => {
      control.fail(error)
    })
  }

  complete(until: number): void {
    if (this.parts.flow.spool === undefined) return
    this.parts.intake.whenDurable(this.part, () => {
      const before = this.completeUntil
      this.completeUntil = until
      // Where records come the state is stored anyway; in silence it is now and then.
      if (until - this.savedUntil < SILENCE_MS && before !== undefined) return
      this.savedUntil = until
      this.parts.control.touch()
    })
  }

  capacity(signal: AbortSignal): Promise<void> {
    const { backpressure, window } = this.parts
    return backpressure?.wait(signal) ?? window.capacity(signal)
  }
  isFull(): boolean {
    return this.parts.flow.spool?.status().full === true
  }

  take(delivery: Delivery, receivedAt: number): Promise<void> {
    return this.parts.intake.take(this, delivery, receivedAt)
  }
  gap(gap: Gap): void {
    this.parts.gaps.gap(this.part, gap)
  }
  held(): readonly string[] {
    return this.parts.gaps.held(this.part.id)
  }
  committed(partition: string, upTo: Position): void {
    this.parts.gaps.committed(this.part, partition, upTo)
  }
  saw(partition: Partition): void {
    this.committer.saw(partition)
  }
  lost(partition: Partition): void {
    this.committer.lost(partition)
  }

  async revoke(partition: Partition, deadlineMs: number, opened: AbortSignal): Promise<void> {
    const { flow, control, work, window, pendingCommits } = this.parts
    const { clock, spool, log } = flow
    const { part, committer, pump } = this
    const ended = linkedAbort(control.cut, opened)
    try {
      const all = await revokePartition(
        {
          taken: async () => {
            await pump.handedOn(partition.name)
            await work.settled()
            if (!part.commitOnceSpooled) await spool?.seal('revoke')
          },
          settled: () =>
            spool === undefined
              ? window.unsettled(part.id, partition.name) === 0
              : !pendingCommits.awaits(committer, partition.name),
          commit: () => committer.flush(Math.min(READER_MS, deadlineMs / 2), partition.name),
        },
        deadlineMs,
        clock,
        ended.controller.signal,
      )
      if (!all && !opened.aborted)
        log.warn(
          `${part.label}: ${partition.name} was given up before all of it was delivered: its new reader may read some of it again`,
        )
    } finally {
      ended.dispose()
      // The source says at its next opening what it still has: perhaps this partition, under the same epoch.
      if (!opened.aborted) committer.lost(partition)
    }
  }
}
