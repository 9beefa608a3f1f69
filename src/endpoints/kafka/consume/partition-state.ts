/** The state of one partition while it is read. */
import type { Partition } from '../../../core/contract'
import type { Block } from './block'
import { encodePosition, partitionName } from './position'

/** A run of fetched records that waits to be read. */
export interface FetchedRun {
  readonly state: PartitionState
  readonly blocks: readonly Block[]
  readonly bytes: number /** Offset after it. */
  readonly next: number
}

export class PartitionState {
  readonly name: string
  readonly assignment: Partition
  /** -1: none at the moment. */
  leader: number
  leaderEpoch: number
  /** A replica nearer to us, for a while. */
  replica: { readonly broker: number; readonly until: number } | undefined
  /** Offset after what was handed on. */
  delivered: number
  highWatermark = -1
  /** Where `--until end` stops. */
  end: number | undefined
  /** The broker has nothing more although the end lies farther: compaction took what was there. */
  exhausted = false
  /** Answers without records, one after the other, although the end lies farther. */
  emptyAnswers: { readonly times: number; readonly since: number } | undefined
  maxBytes: number
  /** Nothing is asked while a fault of it is dealt with. */
  paused = false
  /** Stalled until it is known who leads it. */
  leaderUnknown = false
  /** It was given up: what is still under way of it is dropped. */
  revoked = false
  /** Asked of one broker at a time, and what came is decoded in order. */
  inFlight = { broker: -1, count: 0 }
  private faultLogged = false

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
    this.assignment = { name: this.name, epoch }
    this.leader = led.leader
    this.leaderEpoch = led.leaderEpoch
    this.delivered = next
    this.maxBytes = maxBytes
  }

  brokerAt(now: number): number {
    if (this.replica !== undefined && this.replica.until <= now) this.replica = undefined
    return this.replica?.broker ?? this.leader
  }

  /** All of it up to the end has been handed on. */
  get finished(): boolean {
    return this.end !== undefined && (this.delivered >= this.end || (this.exhausted && this.delivered >= this.next))
  }

  /** Records that were not handed on yet, holes counted. */
  get lag(): number {
    return Math.max(0, this.highWatermark - this.delivered)
  }

  position(offset: number): string {
    return encodePosition({ offset, topicId: this.topicId })
  }

  /** Once per fault, so that a log is not filled with it. */
  isNewFault(fault: boolean): boolean {
    const first = fault && !this.faultLogged
    this.faultLogged = fault
    return first
  }
}
