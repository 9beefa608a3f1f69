import { CONFIRMED, type EndpointContext, type Limits, type Outcome, type Sink, type Write } from '../../core/contract'
import type { CreateSink } from '../../options/define'
import type { options } from './options'

export const create: CreateSink<typeof options> = ({ options: { delay } }) => new DiscardSink(delay)

export class DiscardSink implements Sink {
  readonly limits: Limits = {
    maxEntries: Number.MAX_SAFE_INTEGER,
    maxBytes: 16 * 1024 * 1024,
    maxEntryBytes: Number.MAX_SAFE_INTEGER,
    inFlight: 1,
    ordered: true,
    unit: 'batch',
    confirms: 'each',
  }
  readonly wants = 'lines'
  private context: EndpointContext | undefined

  constructor(private readonly delayMs: number) {}

  open(context: EndpointContext): Promise<void> {
    this.context = context
    return Promise.resolve()
  }

  async write(_write: Write, signal: AbortSignal): Promise<Outcome> {
    if (this.delayMs > 0) await this.context?.clock.sleep(this.delayMs, signal)
    return CONFIRMED
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
