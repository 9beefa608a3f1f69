/** Work that goes on beside reading, such as appends to the spool, and that has to be done before the run is over. */
export class TrackedWork {
  private readonly pending = new Set<Promise<void>>()

  /** @param failed is called with the error of a piece of work that fails */
  constructor(private readonly failed: (error: unknown) => void) {}

  add(work: Promise<unknown>): void {
    const tracked = work
      .then(
        () => undefined,
        (error: unknown) => {
          this.failed(error)
        },
      )
      .finally(() => {
        this.pending.delete(tracked)
      })
    this.pending.add(tracked)
  }

  get isDone(): boolean {
    return this.pending.size === 0
  }

  /** Resolves once all that was added before the call is done. */
  async settled(): Promise<void> {
    await Promise.all(this.pending)
  }
}
