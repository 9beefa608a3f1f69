/**
 * Waits for a full spool as long as an endpoint may be away. Then the disk has failed, and the run ends.
 */
import type { Clock } from '../contract'
import { DiskFailed } from '../errors'
import type { Spool } from './ports'
import type { GiveUpAfter } from '../supervision/supervisor'

/** The spool is looked at so many times, evenly over the time that is waited. */
const LOOKS = 10

export class FullSpool {
  private idle = 0
  private why = ''
  private watch: { stop(): void } | undefined

  /** @param failed is called when nothing has moved for `giveUpAfter`; never, if that is no number */
  constructor(spool: Spool, giveUpAfter: GiveUpAfter, clock: Clock, failed: (error: DiskFailed) => void) {
    if (typeof giveUpAfter !== 'number') return
    const look = (): void => {
      if (++this.idle <= LOOKS) return
      this.stop()
      failed(
        new DiskFailed(
          `the spool has taken nothing for ${Math.round(giveUpAfter / 1000)} s, and nothing was delivered that would make room: ${this.why}; make room, then run the same line again (--give-up-after says how long it waits)`,
        ),
      )
    }
    spool.onStatus(({ full, why = 'it is full' }) => {
      this.why = why
      if (!full) this.stop()
      else if (this.watch === undefined) {
        this.idle = 0
        this.watch = clock.every(giveUpAfter / LOOKS, look)
      }
    })
  }

  /** Tells that something was delivered, which makes space. */
  moved(): void {
    this.idle = 0
  }

  stop(): void {
    this.watch?.stop()
    this.watch = undefined
  }
}
