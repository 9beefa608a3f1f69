/**
 * Writes the flow file soon after something moved, at most once a second, and at once if somebody waits for it.
 */
import type { Clock } from '../contract'
import type { FlowFile } from './ports'

export class Checkpointer<T> {
  private timer: { stop(): void } | undefined
  private dirty = false
  private saving: Promise<void> | undefined
  private error: { readonly cause: unknown } | undefined
  private isKnown_ = false

  /** True if something of this run is durable, so that the next start knows of it. */
  get isKnown(): boolean {
    return this.isKnown_
  }

  /**
   * @param file without it nothing is kept beyond this process
   * @param compose returns the state as it is now
   * @param saved is called with the state that is durable now
   * @param failed is called if the disk did not take the state
   */
  constructor(
    private readonly file: FlowFile<T> | undefined,
    private readonly compose: () => T,
    private readonly saved: (state: T) => void,
    private readonly failed: (error: unknown) => void,
    clock: Clock,
  ) {
    if (file !== undefined)
      this.timer = clock.every(1000, () => {
        if (this.dirty) void this.save()
      })
  }

  touch(): void {
    this.dirty = true
  }

  private save(): Promise<void> {
    this.dirty = false
    const state = this.compose()
    const before = this.saving
    const saving = (async () => {
      await before
      if (this.error !== undefined) return
      try {
        await this.file?.save(state)
        this.isKnown_ = this.file !== undefined
        this.saved(state)
      } catch (cause) {
        this.error = { cause }
        this.failed(cause)
      }
    })()
    this.saving = saving
    return saving
  }

  /** Resolves when the state as it is now is durable. Rejects with the error of the disk. */
  async flush(): Promise<void> {
    await this.save()
    if (this.error !== undefined) throw this.error.cause
  }

  async close(): Promise<void> {
    this.timer?.stop()
    this.timer = undefined
    await this.saving
  }
}
