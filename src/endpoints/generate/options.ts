import { opt } from '../../options/define'

const MIB = 1024 * 1024

export const options = {
  rate: opt.number({
    doc: 'Sets the number of records per second. 0 makes them as fast as the sinks take them.',
    default: 0,
    min: 0,
  }),
  count: opt.integer({
    doc: 'Sets the total number of records, over all runs of this flow. 0 means no end.',
    default: 0,
    min: 0,
  }),
  size: opt.size({
    doc: 'Sets the size of each record in bytes, without its newline. A record is longer where its number needs more.',
    default: 220,
    min: 1,
    max: 16 * MIB,
    identity: true,
  }),
  seed: opt.integer({
    doc: 'Sets the seed of the padding. The same seed gives the same records.',
    default: 1,
    identity: true,
  }),
}
