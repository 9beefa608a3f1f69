/** One partition as it is being read. */
import type { Partition } from '../../core/contract'
import type { Block } from './block'
import { encodePosition, partitionName } from './position'

/** What has been fetched and waits to be read. */
export interface Ready {
  readonly track: Track
  readonly blocks: readonly Block[]
  readonly bytes: number /** Offset after it. */
  readonly next: number
}

export class Track {
  readonly name: string
  readonly place: Partition
  /** -1: none at the moment. */
  leader: number
  leaderEpoch: number
  /** A replica nearer to us, for a while. */
  replica: { readonly broker: number; readonly until: number } | undefined
  /** Offset after what was handed on. */
  handed: number
  highWatermark = -1
  /** Where `--until end` stops. */
  end: number | undefined
  /** The broker has nothing more although the end lies farther: compaction took what was there. */
  exhausted = false
  /** Answers without records, one after the other, although the end lies farther. */
  empty: { readonly times: number; readonly since: number } | undefined
  maxBytes: number
  /** Nothing is asked while a fault of it is dealt with. */
  stalled = false
  /** Stalled until it is known who leads it. */
  lost = false
  /** It was given up: what is still under way of it is dropped. */
  gone = false
  /** Asked of one broker at a time, and what came is decoded in order. */
  busy = { broker: -1, count: 0 }
  private told = false

  /** @param next offset to ask for */
  constructor(
    readonly topic: string,
    readonly topicId: string,
    readonly partition: number,
    epoch: number,
    public next: number,
    led: { readonly leader: number; readonly leaderEpoch: number },
    maxBytes: number,
  ) {
    this.name = partitionName(topic, partition)
    this.place = { name: this.name, epoch }
    this.leader = led.leader
    this.leaderEpoch = led.leaderEpoch
    this.handed = next
    this.maxBytes = maxBytes
  }

  broker(now: number): number {
    if (this.replica !== undefined && this.replica.until <= now) this.replica = undefined
    return this.replica?.broker ?? this.leader
  }

  /** All of it up to the end has been handed on. */
  get finished(): boolean {
    return this.end !== undefined && (this.handed >= this.end || (this.exhausted && this.handed >= this.next))
  }

  /** Records that were not handed on yet, holes counted. */
  get lag(): number {
    return Math.max(0, this.highWatermark - this.handed)
  }

  position(offset: number): string {
    return encodePosition({ offset, topicId: this.topicId })
  }

  /** Once per fault, so that a log is not filled with it. */
  tell(fault: boolean): boolean {
    const first = fault && !this.told
    this.told = fault
    return first
  }
}
