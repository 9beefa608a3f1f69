/**
 * One run of one flow: N sources into M sinks, straight (one sink) or through a spool.
 *
 * Invariants: nothing is committed upstream before it is durable where its guarantee says so: behind the spool when
 * every sink has confirmed it (a source that is released at accept: when it is fsynced), without one when the sink has.
 * A durable cursor comes before the removal of what lies below it. Whatever ends the run, the receipt's sums hold.
 */
import { linkedAbort, unlessAborted } from '../../kit/signal'
import {
  possibleDuplicatesOf,
  endingOf,
  failureOf,
  receiptOf,
  resends,
  stateOf,
  unaccounted,
  type Account,
} from '../accounting/accounts'
import { AckWindow } from '../delivery/ack-window'
import { Intake } from '../delivery/intake'
import { closing } from './closing'
import { Committer } from '../delivery/committer'
import type { Partition, Position } from '../contract'
import { DirectFeed } from '../delivery/direct-feed'
import { lineOf } from '../errors'
import type { FlowState } from './flow-state'
import type { SinkLedger } from '../accounting/sink-ledger'
import type { Ending, FlowParts, FlowResult, SinkPart, SourcePart } from './flow-parts'
import { Checkpointer } from './checkpointer'
import { CorrectedTime } from './corrected-time'
import { Ledger } from '../accounting/ledger'
import { imbalance, type Receipt } from '../accounting/receipt'
import { FullSpool } from './full-spool'
import { Gaps } from '../accounting/gaps'
import { revokePartition } from '../supervision/revoke-partition'
import { inDoubtAtStart, type InDoubtRecords } from '../accounting/in-doubt'
import { sourceOf } from '../recovery/reread-plan'
import type { Feed, Counts } from '../delivery/pending-write'
import { DeliveredPositions } from '../accounting/delivered-positions'
import { PendingCommits } from '../delivery/pending-commits'
import { ResentCounter } from '../accounting/resent-counter'
import type { Restorer } from '../recovery/restorer'
import { makeRestorer } from '../recovery/make-restorer'
import { SpoolBackpressure } from '../delivery/spool-backpressure'
import { SinkPump } from '../delivery/sink-pump'
import { SourcePump } from '../delivery/source-pump'
import { SpoolFeed } from '../delivery/spool-feed'
import type { FlowStatus } from './status'
import { Supervisor } from '../supervision/supervisor'
import { readWatermarkOf } from '../delivery/read-watermark'

/** Records in flight are capped as well as their bytes: a million tiny ones cost more than their bytes. */
const WINDOW_RECORDS = 4_000_000
/**
 * Where a commit is one frame and the peer holds what is not committed at some cost: a RabbitMQ queue is drained a
 * thirtieth more slowly where each acknowledgement waits for 5 ms.
 */
const PROMPT_MS = 1
/** How often it is saved that a feed has sent nothing. */
const SILENCE_MS = 10_000
/** Whoever reads our output may end with us, as by ^C: this long it may yet read what lies in the pipe. */
const READER_MS = 1000

/** Without a spool a stop waits so long for a sink that may be about to come back. */
const AWAY_MS = 5000

interface SinkRun {
  readonly part: SinkPart
  readonly supervisor: Supervisor
  readonly pump: SinkPump
  readonly spoolFeed: SpoolFeed | undefined
  proven: boolean
  tried: boolean
}
interface SourceRun {
  readonly part: SourcePart
  readonly supervisor: Supervisor
  readonly pump: SourcePump
  readonly committer: Committer
  readonly positions: Map<string, Position>
  readonly released: Map<string, Position>
  /** All that was sent until then, epoch milliseconds, is durable. */
  completeUntil: number | undefined
  savedUntil?: number
}

export class Flow {
  private readonly stopReading = new AbortController()
  private readonly cut = new AbortController()
  /** Ends the timers of this run. */
  private readonly over = new AbortController()
  private readonly ledger: Ledger
  private readonly checkpointer: Checkpointer<FlowState>
  private readonly sinks: SinkRun[] = []
  private readonly sources: SourceRun[] = []
  private readonly direct: DirectFeed | undefined
  private readonly window: AckWindow
  private readonly appends = new Set<Promise<void>>()
  private readonly backpressure: SpoolBackpressure | undefined
  private readonly pendingCommits = new PendingCommits()
  private readonly inDoubt: InDoubtRecords | undefined
  private readonly gaps: Gaps
  private readonly fullSpool: FullSpool | undefined
  private readonly restorer: Restorer | undefined
  private readonly intake: Intake
  private failure: Ending | undefined
  private stopping = false
  private cleanEnd = false
  /** The last record that was wanted has been read: every source ended by itself, or the count is full. */
  private reachedEnd = false
  private readonly started: CorrectedTime

  constructor(private readonly parts: FlowParts) {
    const { clock, log, spool, sinks, sources, stored, deadLetters } = parts
    this.started = new CorrectedTime(clock)
    const holding =
      spool === undefined ? undefined : inDoubtAtStart(spool, stored, sources, sinks, parts.nextSequence ?? spool.head)
    this.inDoubt = holding?.held
    this.backpressure = spool === undefined ? undefined : new SpoolBackpressure(spool, parts.memory)
    this.fullSpool =
      spool === undefined
        ? undefined
        : new FullSpool(spool, parts.waitForSpace ?? 'never', clock, (error) => {
            this.fail(error)
          })
    this.ledger = new Ledger(
      parts.runId,
      this.started.at,
      stored?.run === undefined ? 0 : stored.run.restarts + 1,
      holding?.carriedIn ?? new Map(sinks.map(({ id }) => [id, 0])),
    )
    this.checkpointer = new Checkpointer(
      parts.file,
      () => this.compose(),
      (state) => {
        this.saved(state)
      },
      (error) => {
        this.fail(error)
      },
      clock,
    )
    this.gaps = new Gaps({
      held: this.inDoubt,
      ledger: this.ledger,
      spool,
      log,
      touch: () => {
        this.checkpointer.touch()
      },
      track: (work) => {
        this.track(work)
      },
      cursors: () =>
        this.sinks.flatMap(({ part, spoolFeed }) =>
          spoolFeed === undefined ? [] : [[part.id, spoolFeed.cursor] as const],
        ),
    })
    this.window = new AckWindow(
      (source, partition, position) => {
        this.sources.find((run) => run.part.id === source)?.committer.offer(partition, position)
      },
      { bytes: parts.memory, records: WINDOW_RECORDS },
    )
    this.direct = spool === undefined ? new DirectFeed() : undefined
    this.intake = new Intake({
      flow: parts,
      ledger: this.ledger,
      gaps: this.gaps,
      backpressure: this.backpressure,
      pendingCommits: this.pendingCommits,
      direct: this.direct,
      window: this.window,
      signal: this.cut.signal,
      resent: new ResentCounter(spool, sources, Math.min(...sinks.map(({ id }) => this.inDoubt?.of(id) ?? 0))),
      enough: () => {
        this.reachedEnd ||= !this.stopping
        this.stopReading.abort(new Error('count reached'))
      },
      unplaced: (why) => {
        this.unplaced(why)
      },
      track: (work) => {
        this.track(work)
      },
      release: () => {
        this.release()
      },
      touch: () => {
        this.checkpointer.touch()
      },
      settled: (tally) => {
        for (const { part } of this.sinks) this.delivered(part.id, tally)
      },
    })
    const labelOf = (key: string, id = sourceOf(key)): string =>
      sources.find((part) => part.id === id)?.label ?? stored?.sources[id]?.label ?? id
    for (const part of sinks) {
      const supervisor = new Supervisor(part.id, 'sink', part.label, part.supervision, clock, log)
      const cursor = holding?.cursors.get(part.id) ?? spool?.tail ?? 0
      const spoolFeed =
        spool === undefined
          ? undefined
          : new SpoolFeed(
              spool,
              parts.spoolId ?? '',
              labelOf,
              part.id,
              part.sink.limits.unit,
              cursor,
              new DeliveredPositions(stored, spool, part.id, cursor),
              (tally) => {
                this.delivered(part.id, tally)
              },
            )
      const feed: Feed = spoolFeed ?? this.direct ?? new DirectFeed()
      const pump = new SinkPump({
        sink: part.sink,
        id: part.id,
        feed,
        supervisor,
        deadLetters,
        clock,
        log,
        lingerMs: parts.lingerMs,
        stallMs: parts.stallMs,
        signal: this.cut.signal,
        onUnplaced: (why) => {
          this.unplaced(why)
        },
        onProgress: () => undefined,
        beforeFirst: () => this.tries(part.id),
        doubtful:
          spoolFeed === undefined || part.sink.limits.unit === 'segment'
            ? 0
            : possibleDuplicatesOf(
                parts,
                part.id,
                (holding?.carriedIn.get(part.id) ?? 0) - (this.inDoubt?.of(part.id) ?? 0),
              ),
      })
      this.sinks.push({ part, supervisor, pump, spoolFeed, proven: part.supervision.knownGood, tried: false })
    }
    for (const part of sources) this.sources.push(this.sourceRun(part))
    this.restorer = makeRestorer(parts, {
      ledger: this.ledger,
      gaps: this.gaps,
      room: this.backpressure,
      sinks: this.sinks,
      arrivals: this.intake,
      flush: () => this.checkpointer.flush(),
      touch: () => {
        this.checkpointer.touch()
      },
      track: (work) => {
        this.track(work)
      },
    })
    spool?.failed.catch((error: unknown) => {
      this.fail(error)
    })
  }

  private sourceRun(part: SourcePart): SourceRun {
    const { clock, log, spool, stored, until } = this.parts
    const supervisor = new Supervisor(part.id, 'source', part.label, part.supervision, clock, log)
    const positions = new Map(Object.entries(stored?.sources[part.id]?.positions ?? {}))
    const here = part.position === 'here'
    const [first] = this.parts.sinks
    const trail =
      spool === undefined && part.position !== 'none' && first !== undefined
        ? readWatermarkOf(first.sink, clock)
        : undefined
    const committer = new Committer({
      label: part.label,
      clock,
      log,
      watermark: trail,
      everyMs: part.commitOnceSpooled ? PROMPT_MS : here ? 100 : 1000,
      commit: async (partition, position) => {
        if (part.position === 'upstream') {
          await part.source.commit(partition, position)
          run.released.set(partition.name, position)
          this.gaps.committed(part, partition.name, position)
        } else if (here) {
          positions.set(partition.name, position)
          this.checkpointer.touch()
        }
      },
    })
    let begun = false
    const completeUntil = stored?.sources[part.id]?.completeUntil
    const run: SourceRun = {
      part,
      supervisor,
      committer,
      positions,
      released: new Map(),
      completeUntil,
      pump: new SourcePump({
        id: part.id,
        source: part.source,
        supervisor,
        live: part.live && spool !== undefined,
        clock,
        log,
        until,
        signal: this.cut.signal,
        stopReading: this.stopReading.signal,
        stored: (partition) => spool?.position(part.id, partition) ?? positions.get(partition),
        storedPartitions: () => [...positions.keys(), ...(spool?.partitions(part.id) ?? [])],
        lastReceivedAt: () => (spool === undefined ? undefined : (completeUntil ?? spool.lastReceivedAt(part.id))),
        opening: async () => {
          if (begun || spool === undefined || !part.live) return
          begun = true
          // Killed from here on, it has missed what it would have read: the next run's gap begins now. A feed sends as
          // soon as it is connected, so this is stored before.
          run.completeUntil ??= clock.now()
          await this.checkpointer.flush().catch((error: unknown) => {
            this.fail(error)
          })
        },
        complete: (until) => {
          if (spool !== undefined)
            this.intake.whenDurable(part, () => {
              this.completed(run, until)
            })
        },
        room: (signal) => this.room(signal),
        pressed: () => spool?.status().full === true,
        take: (delivery, receivedAt) => this.intake.take(run, delivery, receivedAt),
        gap: (gap) => {
          this.gaps.gap(part, gap)
        },
        held: () => this.gaps.held(part.id),
        committed: (partition, upTo) => {
          this.gaps.committed(part, partition, upTo)
        },
        revoke: (partition, deadlineMs, opened) => this.revoke(run, partition, deadlineMs, opened),
        lost: (partition) => {
          committer.lost(partition)
        },
        saw: (partition) => {
          committer.saw(partition)
        },
      }),
    }
    return run
  }

  /** Runs to the end. Call once. */
  async run(): Promise<FlowResult> {
    // That this run began is known before its first record: a kill at any moment leaves a receipt to issue.
    await (this.restorer?.begin() ?? this.checkpointer.flush()).catch((error: unknown) => {
      this.fail(error)
    })
    const sinkRuns = this.sinks.map((sink) => this.guard(sink.pump.run()))
    await this.restorer?.resume().catch((error: unknown) => {
      if (!this.stopping) this.fail(error)
    })
    const ends = await Promise.all(this.sources.map(({ pump }) => this.guard(pump.run())))
    this.reachedEnd ||= ends.every((end) => end === 'ended')
    await this.endInput()
    await Promise.all(sinkRuns)
    this.cleanEnd = this.failure === undefined && !this.cut.signal.aborted
    if (this.failure?.kind === 'reader gone') for (const { committer } of this.sources) committer.silence()
    // Whatever was settled is committed, also after a failure elsewhere: it need not come again.
    const patience = this.cut.signal.aborted ? 0 : this.stopping || this.failure !== undefined ? READER_MS : Infinity
    await this.bounded(Promise.all(this.sources.map(({ committer }) => committer.flush(patience))))
    for (const { committer } of this.sources) committer.stop()
    await this.bounded(Promise.all(this.sources.map(({ pump }) => pump.close())))
    return this.finish()
  }

  /** Stop reading, drain, close; within the grace. */
  stop(): void {
    if (this.stopping) return
    this.stopping = true
    this.stopReading.abort(new Error('stopping'))
    this.restorer?.stop()
    const { clock, graceMs } = this.parts
    clock.sleep(graceMs, this.over.signal).then(
      () => {
        this.abort()
      },
      () => undefined,
    )
    const watch = clock.every(100, () => {
      if (this.cut.signal.aborted || this.over.signal.aborted) {
        watch.stop()
        return
      }
      if (this.sinks.every(({ pump }) => pump.isWaiting) && this.isKept()) {
        watch.stop()
        this.abort()
      }
    })
  }
  /**
   * What is left need not wait for sinks that are away: the next start delivers it out of the spool, or the source
   * sends it again.
   */
  private isKept(): boolean {
    const { spool } = this.parts
    if (spool === undefined)
      return resends(this.parts) && this.sinks.every(({ supervisor }) => supervisor.failingMs >= AWAY_MS)
    return (this.inputEnded && this.appends.size === 0) || (spool.status().full && resends(this.parts))
  }
  private inputEnded = false

  /** Cut short: nothing more is awaited. */
  abort(): void {
    this.stopReading.abort(new Error('aborted'))
    this.restorer?.stop()
    this.cut.abort(new Error('aborted'))
    this.backpressure?.wake()
  }

  /**
   * Receipts of earlier runs that are still to be issued: they are stored with this one's until `issued` says
   * otherwise.
   */
  owes(receipts: readonly Receipt[]): void {
    this.unissued = receipts
  }
  /**
   * After the run: all its receipts are with whoever wants them, but for these. Otherwise the next start issues them.
   */
  async issued(left: readonly Receipt[]): Promise<void> {
    this.unissued = left
    await this.checkpointer.flush().catch((error: unknown) => {
      this.parts.log.debug(`that the receipt was issued could not be stored: ${lineOf(error)}`)
    })
  }

  status(): FlowStatus {
    const spool = this.parts.spool?.status()
    const { ledger } = this.account()
    // Until the end it may yet be delivered.
    const lost = this.ended === undefined ? { returned: 0, abandoned: 0 } : unaccounted(this.parts, this.account())
    const counts = (id: string): SinkLedger => {
      const { returned, abandoned, ...rest } = ledger.sink(id)
      return { ...rest, returned: returned + lost.returned, abandoned: abandoned + lost.abandoned }
    }
    return {
      name: this.parts.name,
      started: this.started.at,
      read: this.ledger.read,
      bytesRead: this.ledger.bytesRead,
      restarts: this.ledger.restarts,
      gaps: this.ledger.gapCount,
      sources: this.sources.map(({ supervisor }) => supervisor.status()),
      sinks: this.sinks.map(({ part, supervisor, pump, spoolFeed }) => ({
        ...supervisor.status(),
        ...counts(part.id),
        pending:
          spoolFeed === undefined
            ? pump.counts.pending
            : (this.parts.spool?.countFrom(spoolFeed.cursor) ?? 0) +
              (this.inDoubt?.of(part.id) ?? 0) +
              (this.restorer?.of(part.id) ?? 0),
      })),
      ...(spool === undefined ? {} : { spool }),
    }
  }

  private async guard<T>(run: Promise<T>): Promise<T | undefined> {
    try {
      return await run
    } catch (error) {
      if (!this.cut.signal.aborted) this.fail(error)
      return undefined
    }
  }

  /** The first failure decides; reading stops and what can still be drained is drained. */
  private fail(error: unknown): void {
    const ending = failureOf(error)
    this.failure ??= ending
    if (ending.kind === 'source failed') this.stop()
    // Nothing can be drained into a sink that is gone, nor past a disk or a bug that cannot be trusted; with several
    // sinks the others have the spool.
    else this.abort()
  }

  private unplaced(why: string): void {
    this.failure ??= {
      kind: 'incomplete',
      why: `a record was rejected and there is nowhere to keep it: ${why}; --dead-letter says where rejected records go`,
    }
    this.stop()
  }

  private room(signal: AbortSignal): Promise<void> {
    return this.backpressure?.wait(signal) ?? this.window.room(signal)
  }

  /** Awaited before the run is over; its failure ends the run. */
  private track(work: Promise<unknown>): void {
    const tracked = work
      .then(
        () => undefined,
        (error: unknown) => {
          if (!this.cut.signal.aborted) this.fail(error)
        },
      )
      .finally(() => {
        this.appends.delete(tracked)
      })
    this.appends.add(tracked)
  }

  private delivered(id: string, tally: Counts): void {
    this.ledger.settled(id, tally)
    this.fullSpool?.moved()
    const sink = this.sinks.find((run) => run.part.id === id)
    if (sink !== undefined && tally.delivered > 0) sink.proven = true
    this.release()
    this.checkpointer.touch()
  }

  /** What a kill leaves in doubt is all that was spooled, where it is not known that nothing was written. */
  private async tries(id: string): Promise<void> {
    const sink = this.sinks.find((run) => run.part.id === id)
    if (sink?.spoolFeed === undefined || sink.part.sink.limits.unit === 'segment') return
    sink.tried = true
    await this.checkpointer.flush()
  }

  /** Where records come the state is saved anyway; in silence it is now and then. */
  private completed(run: SourceRun, until: number): void {
    const before = run.completeUntil
    run.completeUntil = until
    if (until - (run.savedUntil ?? 0) < SILENCE_MS && before !== undefined) return
    run.savedUntil = until
    this.checkpointer.touch()
  }

  private release(): void {
    this.pendingCommits.upTo(Math.min(...this.sinks.map(({ spoolFeed }) => spoolFeed?.cursor ?? Infinity)))
  }

  private async revoke(
    { part, committer, pump }: SourceRun,
    partition: Partition,
    deadlineMs: number,
    opened: AbortSignal,
  ): Promise<void> {
    const { clock, spool } = this.parts
    const ended = linkedAbort(this.cut.signal, opened)
    try {
      const all = await revokePartition(
        {
          taken: async () => {
            await pump.handedOn(partition.name)
            await Promise.all(this.appends)
            if (!part.commitOnceSpooled) await spool?.seal('revoke')
          },
          settled: () =>
            spool === undefined
              ? this.window.unsettled(part.id, partition.name) === 0
              : !this.pendingCommits.awaits(committer, partition.name),
          commit: () => committer.flush(Math.min(READER_MS, deadlineMs / 2), partition.name),
        },
        deadlineMs,
        clock,
        ended.controller.signal,
      )
      if (!all && !opened.aborted)
        this.parts.log.warn(
          `${part.label}: ${partition.name} was given up before all of it was delivered: its new reader may read some of it again`,
        )
    } finally {
      ended.dispose()
      // Whoever opens again says what it still has: perhaps this one, under the same epoch.
      if (!opened.aborted) committer.lost(partition)
    }
  }

  private async endInput(): Promise<void> {
    // Some may wait for space that nobody makes any more: what was not accepted is the source's.
    try {
      while (this.appends.size > 0) await unlessAborted(Promise.all(this.appends), this.cut.signal)
    } catch {
      return
    }
    this.direct?.end()
    if (this.cut.signal.aborted) return
    // So may the seal of what is the spool's: the next start finds it as it is.
    try {
      await unlessAborted(Promise.resolve(this.parts.spool?.end()), this.cut.signal)
    } catch (error) {
      if (!this.cut.signal.aborted) this.fail(error)
    }
    this.inputEnded = true
  }

  /**
   * Without a spool: confirmed records of deliveries that were not settled as a whole. They come twice where the source
   * sends the whole of it again.
   */
  private settlePartly(): void {
    for (const { part, pump, spoolFeed } of this.sinks) {
      if (spoolFeed !== undefined) continue
      const { within, beyond } = pump.untold()
      for (const tally of [within, beyond]) this.ledger.settled(part.id, tally)
      if (resends(this.parts)) pump.counts.possibleDuplicates += within.delivered + beyond.delivered
    }
  }

  private bounded(work: Promise<unknown>): Promise<void> {
    return closing(work, this.cut.signal.aborted, this.parts)
  }

  private compose(): FlowState {
    this.ledger.started = this.started.at
    return stateOf(this.parts, this.account())
  }
  private account(): Account {
    for (const { part, pump } of this.sinks) this.ledger.duplicates(part.id, pump.counts.possibleDuplicates)
    return {
      ledger: this.ledger,
      sources: this.sources,
      sinks: this.sinks,
      held: this.inDoubt,
      restorer: this.restorer,
      started: this.started.at,
      ms: this.started.ms,
      ended: this.ended,
      acceptedThrough: this.intake.acceptedThrough,
      unissued: this.unissued,
    }
  }
  private unissued: readonly Receipt[] = []
  private ended: number | undefined
  private trimming: Promise<void> | undefined

  private saved(state: FlowState): void {
    const { spool } = this.parts
    if (spool === undefined) return
    if (this.restorer?.looking === true) return
    const low = Math.min(...Object.values(state.sinks).map((sink) => sink.cursor), this.inDoubt?.low ?? Infinity)
    this.trimming = spool.drop(low).catch((error: unknown) => {
      this.parts.log.warn(`the spool could not be trimmed: ${lineOf(error)}`)
    })
  }

  private async finish(): Promise<FlowResult> {
    const { clock, spool } = this.parts
    await this.bounded(Promise.all(this.appends))
    // From here on nothing is accepted any more that the receipt does not know of.
    await spool?.close()
    this.settlePartly()
    this.ended = clock.now()
    this.fullSpool?.stop()
    let ending =
      this.failure ??
      endingOf(
        this.parts,
        this.account(),
        this.stopping && !(this.cleanEnd && this.reachedEnd) ? { cleanEnd: this.cleanEnd } : undefined,
      )
    const receipt = receiptOf(this.parts, this.account(), ending)
    this.unissued = [...this.unissued, receipt]
    let provisional = false
    try {
      await this.checkpointer.flush()
    } catch (error) {
      provisional = this.checkpointer.isKnown
      if (ending.kind === 'complete' || ending.kind === 'stopped') ending = { kind: 'disk failed', why: lineOf(error) }
    }
    await this.checkpointer.close()
    await this.trimming
    this.over.abort(new Error('over'))
    const wrong = receipt.sinks.find((sink) => imbalance(sink) !== 0)
    if (wrong !== undefined && ending.kind !== 'bug')
      ending = {
        kind: 'bug',
        error: new Error(`the receipt of ${wrong.label} does not add up: off by ${imbalance(wrong)}`),
      }
    return { ending, receipt, provisional }
  }
}
