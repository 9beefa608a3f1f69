import { opt } from '../../options/define'

const MIB = 1024 * 1024

export const options = {
  rate: opt.number({ doc: 'Records per second; 0: as fast as they are taken.', default: 0, min: 0 }),
  count: opt.integer({
    doc: 'Records in all, those of earlier runs of this flow included; 0: no end.',
    default: 0,
    min: 0,
  }),
  size: opt.size({
    doc: 'Bytes of each record, its newline not counted; a record is never shorter than its number needs.',
    default: 220,
    min: 1,
    max: 16 * MIB,
    identity: true,
  }),
  seed: opt.integer({
    doc: 'What the padding is made from: the same seed gives the same records.',
    default: 1,
    identity: true,
  }),
}
