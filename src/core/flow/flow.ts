/**
 * One run of one flow: N sources into M sinks, straight (one sink) or through a spool.
 *
 * Nothing is committed upstream before it is durable where its guarantee says so: behind the spool when every sink has
 * confirmed it (for `commitOnceSpooled` when it is fsynced), without one when the sink has. A durable cursor comes
 * before the removal of records below it. Whatever ends the run, the receipt's sums hold.
 */
import { unlessAborted } from '../../kit/signal'
import { endingOf, failureOf, receiptOf, resends, stateOf, unaccounted, type Account } from '../accounting/accounts'
import { Gaps } from '../accounting/gaps'
import { inDoubtAtStart, type InDoubtRecords } from '../accounting/in-doubt'
import { Ledger } from '../accounting/ledger'
import { imbalance, type Receipt } from '../accounting/receipt'
import { ResentCounter } from '../accounting/resent-counter'
import type { SinkLedger } from '../accounting/sink-ledger'
import { AckWindow } from '../delivery/ack-window'
import { DirectFeed } from '../delivery/direct-feed'
import { Intake } from '../delivery/intake'
import { PendingCommits } from '../delivery/pending-commits'
import { SpoolBackpressure } from '../delivery/spool-backpressure'
import { lineOf } from '../errors'
import { makeRestorer } from '../recovery/make-restorer'
import type { Restorer } from '../recovery/restorer'
import { Checkpointer } from './checkpointer'
import { closing } from './closing'
import { CorrectedTime } from './corrected-time'
import type { Ending, FlowParts, FlowResult } from './flow-parts'
import type { FlowState } from './flow-state'
import { FullSpool } from './full-spool'
import type { RunControl } from './run-control'
import { SinkRun } from './sink-run'
import { READER_MS, SourceRun } from './source-run'
import type { FlowStatus } from './status'
import { TrackedWork } from './tracked-work'

/** Not only bytes in flight are bounded, but also records: a million tiny ones cost more than their bytes. */
const WINDOW_RECORDS = 4_000_000
/** Without a spool a stop waits so long for a sink that may be about to come back. */
const AWAY_MS = 5000

export class Flow {
  private readonly stopReading = new AbortController()
  private readonly cut = new AbortController()
  /** Ends the timers of this run. */
  private readonly over = new AbortController()
  private readonly work = new TrackedWork((error) => {
    if (!this.cut.signal.aborted) this.fail(error)
  })
  private readonly control: RunControl
  private readonly ledger: Ledger
  private readonly checkpointer: Checkpointer<FlowState>
  private readonly sinks: SinkRun[] = []
  private readonly sources: SourceRun[] = []
  private readonly direct: DirectFeed | undefined
  private readonly window: AckWindow
  private readonly backpressure: SpoolBackpressure | undefined
  private readonly pendingCommits = new PendingCommits()
  private readonly inDoubt: InDoubtRecords | undefined
  private readonly fullSpool: FullSpool | undefined
  private readonly restorer: Restorer | undefined
  private readonly intake: Intake
  private failure: Ending | undefined
  private stopping = false
  private inputEnded = false
  private cleanEnd = false
  /** The last record that was wanted has been read: every source ended by itself, or the count is full. */
  private reachedEnd = false
  private readonly started: CorrectedTime
  private unissued: readonly Receipt[] = []
  private ended: number | undefined
  private trimming: Promise<void> | undefined

  constructor(private readonly parts: FlowParts) {
    const { clock, log, spool, sinks, sources, stored } = parts
    this.started = new CorrectedTime(clock)
    const atStart =
      spool === undefined ? undefined : inDoubtAtStart(spool, stored, sources, sinks, parts.nextSequence ?? spool.head)
    this.inDoubt = atStart?.inDoubt
    this.control = this.makeControl()
    const { control } = this
    this.ledger = new Ledger(
      parts.runId,
      this.started.at,
      stored?.run === undefined ? 0 : stored.run.restarts + 1,
      atStart?.carriedIn ?? new Map(sinks.map(({ id }) => [id, 0])),
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
    const gaps = new Gaps({ inDoubt: this.inDoubt, ledger: this.ledger, spool, log, control, sinks: this.sinks })
    this.window = new AckWindow(
      (source, partition, position) => {
        this.sources.find((run) => run.part.id === source)?.committer.offer(partition, position)
      },
      { bytes: parts.memory, records: WINDOW_RECORDS },
    )
    if (spool === undefined) this.direct = new DirectFeed()
    else {
      this.backpressure = new SpoolBackpressure(spool, parts.memory)
      this.fullSpool = new FullSpool(spool, parts.waitForSpace ?? 'never', clock, (error) => {
        this.fail(error)
      })
      spool.failed.catch((error: unknown) => {
        this.fail(error)
      })
    }
    this.intake = new Intake({
      flow: parts,
      ledger: this.ledger,
      gaps,
      backpressure: this.backpressure,
      pendingCommits: this.pendingCommits,
      direct: this.direct,
      window: this.window,
      resent: new ResentCounter(spool, sources, Math.min(...sinks.map(({ id }) => this.inDoubt?.of(id) ?? 0))),
      control,
      sinks: this.sinks,
    })
    const shared = { flow: parts, control, ledger: this.ledger, gaps, intake: this.intake, work: this.work, atStart }
    const { fullSpool, direct, window, pendingCommits, backpressure } = this
    for (const part of sinks) this.sinks.push(new SinkRun(part, { ...shared, fullSpool, direct }))
    for (const part of sources)
      this.sources.push(new SourceRun(part, { ...shared, window, pendingCommits, backpressure }))
    this.restorer = makeRestorer(parts, { ...shared, backpressure, sinks: this.sinks })
  }

  private makeControl(): RunControl {
    return {
      cut: this.cut.signal,
      stopReading: this.stopReading.signal,
      track: (work) => {
        this.work.add(work)
      },
      fail: (error) => {
        this.fail(error)
      },
      unplaced: (why) => {
        this.unplaced(why)
      },
      enough: () => {
        this.reachedEnd ||= !this.stopping
        this.stopReading.abort(new Error('count reached'))
      },
      touch: () => {
        this.checkpointer.touch()
      },
      flush: () => this.checkpointer.flush(),
      commitDelivered: () => {
        this.pendingCommits.upTo(Math.min(...this.sinks.map(({ spoolFeed }) => spoolFeed?.cursor ?? Infinity)))
      },
    }
  }

  /** Runs to the end. It may be called once. */
  async run(): Promise<FlowResult> {
    // The beginning of this run is stored before its first record, so a kill at any moment leaves a receipt to issue.
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

  /** Stops reading, drains and closes, within the grace. */
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
   * The records that are left need not wait for sinks that are away: the next start delivers them out of the spool, or
   * the source sends them again.
   */
  private isKept(): boolean {
    const { spool } = this.parts
    if (spool === undefined)
      return resends(this.parts) && this.sinks.every(({ supervisor }) => supervisor.failingMs >= AWAY_MS)
    return (this.inputEnded && this.work.isDone) || (spool.status().full && resends(this.parts))
  }

  /** Cuts the run short: nothing more is awaited. */
  abort(): void {
    this.stopReading.abort(new Error('aborted'))
    this.restorer?.stop()
    this.cut.abort(new Error('aborted'))
    this.backpressure?.wake()
  }

  /**
   * Takes receipts of earlier runs that are still to be issued. They are stored with this run's until `issued` says
   * otherwise.
   */
  owes(receipts: readonly Receipt[]): void {
    this.unissued = receipts
  }
  /**
   * Tells, after the run, that all its receipts were issued but these. The next start issues those that are left.
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
    // Until the end these records may yet be delivered.
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

  /** The first failure decides how the run ends. Reading stops, and all that can still be drained is drained. */
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

  private async endInput(): Promise<void> {
    // Some appends may wait for space that nobody makes any more. Their records still belong to the source.
    try {
      while (!this.work.isDone) await unlessAborted(this.work.settled(), this.cut.signal)
    } catch {
      return
    }
    this.direct?.end()
    if (this.cut.signal.aborted) return
    // The seal may wait as well. The next start finds the segment as it is.
    try {
      await unlessAborted(Promise.resolve(this.parts.spool?.end()), this.cut.signal)
    } catch (error) {
      if (!this.cut.signal.aborted) this.fail(error)
    }
    this.inputEnded = true
  }

  /**
   * Counts, without a spool, confirmed records of deliveries that were not settled as a whole. They come twice if the
   * source sends the whole delivery again.
   */
  private settlePartly(): void {
    for (const { part, pump, spoolFeed } of this.sinks) {
      if (spoolFeed !== undefined) continue
      const { within, beyond } = pump.untold()
      for (const counts of [within, beyond]) this.ledger.settled(part.id, counts)
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
      inDoubt: this.inDoubt,
      restorer: this.restorer,
      started: this.started.at,
      ms: this.started.ms,
      ended: this.ended,
      acceptedThrough: this.intake.acceptedThrough,
      unissued: this.unissued,
    }
  }
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
    await this.bounded(this.work.settled())
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
