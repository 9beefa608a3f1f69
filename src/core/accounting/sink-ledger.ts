/** The counts of one sink, as the flow file stores them and the receipt shows them. */

/** carriedIn + read = delivered + rejected + dropped + filtered + returned + abandoned + what is still spooled. */
export interface SinkLedger {
  readonly carriedIn: number
  readonly delivered: number
  readonly rejected: number
  readonly dropped: number
  readonly filtered: number
  readonly returned: number
  readonly abandoned: number
  readonly possibleDuplicates: number
  readonly bytes: number
}

export const NOTHING: SinkLedger = {
  carriedIn: 0,
  delivered: 0,
  rejected: 0,
  dropped: 0,
  filtered: 0,
  returned: 0,
  abandoned: 0,
  possibleDuplicates: 0,
  bytes: 0,
}
