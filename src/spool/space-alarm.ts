/** Keeps whether appends wait for space, why they do, and tells those who want to know. */
import type { SpoolStatus } from '../core/flow/ports'
import type { SpoolContext } from './segment'

const PROBE_EVERY = 1000
/** A full spool that lasts this long is told also where warnings are kept back. */
const LASTING_MS = 60_000

export class SpaceAlarm {
  private why: string | undefined
  private since = 0
  private isLasting = false
  private probe: { stop(): void } | undefined
  private readonly changes: ((status: SpoolStatus) => void)[] = []

  /**
   * @param look called now and then while it is full: whoever else writes to the disk does not tell when there is space
   *   again
   */
  constructor(
    private readonly context: SpoolContext,
    private readonly bytes: () => number,
    private readonly look: () => void,
  ) {}

  get full(): boolean {
    return this.why !== undefined
  }

  status(): SpoolStatus {
    return { bytes: this.bytes(), full: this.full, ...(this.why === undefined ? {} : { why: this.why }) }
  }
  onStatus(changed: (status: SpoolStatus) => void): void {
    this.changes.push(changed)
  }

  begin(why: string): void {
    this.probe ??= this.context.clock.every(PROBE_EVERY, () => {
      this.tellLasting()
      this.look()
    })
    const fresh = this.why === undefined
    this.why = why
    if (!fresh) return
    this.since = this.context.clock.monotonic()
    this.context.log.warn(`the spool in ${this.context.directory} is full, appends wait: ${why}`)
    this.tell()
  }

  end(): void {
    this.stop()
    if (this.why === undefined) return
    this.why = undefined
    this.isLasting = false
    this.context.log.info(`the spool in ${this.context.directory} has space again`)
    this.tell()
  }

  /** No more looks. */
  stop(): void {
    this.probe?.stop()
    this.probe = undefined
  }

  private tellLasting(): void {
    const { clock, directory, log } = this.context
    if (this.why === undefined || this.isLasting || clock.monotonic() - this.since < LASTING_MS) return
    this.isLasting = true
    log.lasting?.(
      `the spool in ${directory} is full since ${new Date(clock.now() - (clock.monotonic() - this.since)).toISOString()}, appends wait: ${this.why}`,
    )
  }

  private tell(): void {
    for (const changed of this.changes) changed(this.status())
  }
}
