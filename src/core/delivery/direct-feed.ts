/** Feeds one sink straight from the sources, in memory. The ack window bounds it. */
import { Notifier } from '../../kit/signal'
import type { Feed, FeedItem } from './pending-write'

export class DirectFeed implements Feed {
  private readonly queue: FeedItem[] = []
  private readonly wake = new Notifier()
  private ended = false

  push(piece: FeedItem): void {
    this.queue.push(piece)
    this.wake.notify()
  }

  end(): void {
    this.ended = true
    this.wake.notify()
  }

  async next(signal: AbortSignal): Promise<FeedItem | null> {
    const aborted = (): void => {
      this.wake.notify()
    }
    signal.addEventListener('abort', aborted, { once: true })
    try {
      for (;;) {
        if (signal.aborted) throw signal.reason
        const piece = this.queue.shift()
        if (piece !== undefined) return piece
        if (this.ended) return null
        await this.wake.wait()
      }
    } finally {
      signal.removeEventListener('abort', aborted)
    }
  }
}
