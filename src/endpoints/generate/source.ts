import { LineBatch, within } from '../../core/batch'
import type { Clock, Delivery, Partition, Position, Source, SourceContext } from '../../core/contract'
import type { CreateSource } from '../../options/define'
import { RecordGenerator } from './record-generator'
import type { options } from './options'

export const create: CreateSource<typeof options> = ({ options: { rate, count, size, seed } }) =>
  new GenerateSource(rate, count, new RecordGenerator(size, seed))

const PARTITION: Partition = { name: 'generate', epoch: 0 }
/** A delivery has this many bytes. About half of the contract's limit is large enough. */
const BLOCK_BYTES = 512 * 1024
/** If records came due while nobody took them, the source catches up by at most this time. */
const CATCH_UP_MS = 1000
/** A timer is not finer than this, so high rates come in small bursts. */
const TICK_MS = 5

export class GenerateSource implements Source {
  private clock: Clock | undefined
  private generated = 0
  /** The next record is due at this time. */
  private nextDueAt = 0

  constructor(
    private readonly rate: number,
    private readonly count: number,
    private readonly generator: RecordGenerator,
  ) {}

  open({ clock, resume }: SourceContext): Promise<void> {
    this.clock = clock
    this.generated = Number(resume(PARTITION.name) ?? 0)
    this.nextDueAt = clock.monotonic()
    return Promise.resolve()
  }

  async read(signal: AbortSignal): Promise<Delivery | null> {
    if (signal.aborted) throw signal.reason
    const left = this.count === 0 ? Infinity : this.count - this.generated
    if (left <= 0) return null
    const delivery = this.delivery(this.generated, Math.min(left, await this.dueRecords(signal)))
    const { count } = delivery.batch
    this.generated += count
    if (this.rate > 0) this.nextDueAt += (count * 1000) / this.rate
    return delivery
  }

  private delivery(made: number, allowed: number): Delivery {
    const { bytes, count } = this.generator.block(made + 1, allowed, BLOCK_BYTES)
    return {
      batch: new LineBatch([bytes], count),
      partition: PARTITION,
      last: String(made + count),
      at: within(count, (index) => String(made + 1 + index)),
    }
  }

  /** Returns how many records are due. It waits until there is one. */
  private async dueRecords(signal: AbortSignal): Promise<number> {
    if (this.rate === 0 || this.clock === undefined) return Infinity
    for (;;) {
      const late = this.clock.monotonic() - this.nextDueAt
      if (late >= 0) {
        this.nextDueAt = Math.max(this.nextDueAt, this.clock.monotonic() - CATCH_UP_MS)
        return Math.floor(((this.clock.monotonic() - this.nextDueAt) * this.rate) / 1000) + 1
      }
      await this.clock.sleep(Math.max(-late, TICK_MS), signal)
    }
  }

  async *again(
    _partition: string,
    from: Position | undefined,
    to: Position,
    signal: AbortSignal,
  ): AsyncGenerator<Delivery, void, undefined> {
    for (let made = Number(from ?? 0); made < Number(to) && !signal.aborted; ) {
      // This lets other work run in between.
      await Promise.resolve()
      const delivery = this.delivery(made, Number(to) - made)
      yield delivery
      made += delivery.batch.count
    }
  }

  commit(): Promise<void> {
    return Promise.resolve()
  }
  close(): Promise<void> {
    return Promise.resolve()
  }
}
