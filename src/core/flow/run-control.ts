/** Sources, sinks and the parts between them ask this of the run as a whole. */
export interface RunControl {
  /** Aborts when the run is cut short: nothing more is awaited. */
  readonly cut: AbortSignal
  /** Aborts when reading stops; records that were read go on. */
  readonly stopReading: AbortSignal
  /** The run is not over before this work is done, and fails with it. */
  track(work: Promise<unknown>): void
  /** Ends the run with this error, unless another one came first. */
  fail(error: unknown): void
  /** Ends the run because a record was rejected and there is nowhere to keep it. */
  unplaced(why: string): void
  /** Ends reading because the last record that was wanted has been read. */
  enough(): void
  /** The state has changed: it is stored soon. */
  touch(): void
  /** Resolves once the state as it is now is durable. Rejects if the disk fails. */
  flush(): Promise<void>
  /** Commits upstream whatever every sink has confirmed since. */
  commitDelivered(): void
}
