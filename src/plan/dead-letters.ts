/**
 * Takes records that cannot be delivered to an ordinary sink, as envelopes. The sink is opened with the first of them.
 * A dead letter counts once it is confirmed there. A sink that is away blocks for as long as any endpoint may be away,
 * and one that refuses ends the run.
 */
import { encodeDeadLetter } from '../codec/envelope'
import { LineBatch } from '../core/batch'
import type { Clock, Log, Sink } from '../core/contract'
import { DirectFeed } from '../core/delivery/direct-feed'
import type { DeadLetter, DeadLetters } from '../core/flow/ports'
import { SinkPump } from '../core/delivery/sink-pump'
import { Supervisor, type GiveUpAfter } from '../core/supervision/supervisor'
import { unlessAborted } from '../kit/signal'

export interface DeadLetterSink extends DeadLetters {
  /** The place of the letters; absent if none is kept. */
  readonly place?: string
  /** Letters that are under way are confirmed, then the sink is closed. */
  close(): Promise<void>
}

export const dropping: DeadLetterSink = { policy: 'drop', put: () => Promise.resolve(), close: () => Promise.resolve() }
export const stopping: DeadLetterSink = {
  policy: 'stop',
  put: () => Promise.reject(new Error('nowhere to put a dead letter')),
  close: () => Promise.resolve(),
}

/** @param make the sink; asked with the first dead letter */
export function keeping(
  label: string,
  make: () => Promise<Sink>,
  giveUpAfter: GiveUpAfter,
  clock: Clock,
  log: Log,
): DeadLetterSink {
  const feed = new DirectFeed()
  const stop = new AbortController()
  let started: Promise<void> | undefined
  let failed: Promise<never> | undefined
  let running: Promise<void> | undefined
  async function start(): Promise<void> {
    const sink = await make()
    const supervisor = new Supervisor('dead-letter', 'sink', label, { giveUpAfter, knownGood: false }, clock, log)
    log.warn(`records that cannot be delivered go to ${label}`)
    const nowhere: DeadLetters = { policy: 'stop', put: () => Promise.reject(new Error('a dead letter was rejected')) }
    const pump = new SinkPump({
      sink,
      id: 'dead',
      feed: feed,
      supervisor,
      deadLetters: nowhere,
      clock,
      log,
      lingerMs: 0,
      stallMs: 0,
      signal: stop.signal,
      onUnplaced: (why) => {
        stop.abort(new Error(`${label} refused a dead letter: ${why}`))
      },
    })
    running = pump.run()
    failed = running.then(() => new Promise<never>(() => undefined))
    // Observed by whoever puts; without one the fault waits for the next.
    failed.catch(() => undefined)
  }
  return {
    policy: 'keep',
    place: label,
    async put(letters, signal) {
      started ??= start()
      await started
      const lines = letters.map(encodeDeadLetter)
      const settled = new Promise<void>((resolve) => {
        feed.push({
          payload: new LineBatch([Buffer.concat(lines)], letters.length),
          count: letters.length,
          origin: (index) => originOf(letters[index]),
          settle: () => {
            resolve()
          },
        })
      })
      await unlessAborted(Promise.race([settled, failed ?? settled]), signal)
    },
    async close() {
      stop.abort(new Error('closing'))
      // Each caller who put a letter was told what went wrong with it.
      await started?.catch(() => undefined)
      await running?.catch(() => undefined)
    },
  }
}

function originOf(letter: DeadLetter | undefined): {
  readonly source: string
  readonly partition: string
  readonly position: string
  readonly receivedAt: number
} {
  return {
    source: letter?.source ?? '',
    partition: letter?.partition ?? '',
    position: letter?.position ?? '',
    receivedAt: letter?.receivedAt ?? 0,
  }
}
