import { opt } from '../../options/define'
import { framedSink, framedSource } from '../../options/shared'

export const options = {
  ...framedSource,
  ...framedSink,
  compression: opt.oneOf(['auto', 'none', 'gzip', 'zstd'], {
    doc: 'What the files are compressed with; auto: .gz and .zst by their names.',
    default: 'auto',
  }),
  compressionLevel: opt.integer({
    doc: 'Effort of the compression: gzip 1 to 9, zstd 1 to 19.',
    defaultText: 'gzip 6, zstd 3',
    min: 1,
    max: 19,
    roles: ['sink'],
  }),
  follow: opt.flag({
    doc: 'Goes on with what is appended, through rotation by rename and by truncation, and with new files that match.',
    default: false,
    roles: ['source'],
  }),
  start: opt.string({
    doc: 'Where files begin of which no position is stored: oldest, latest (what is appended from now on), or -N for the last N lines. Compressed files are read to their end for it.',
    default: 'oldest',
    roles: ['source'],
  }),
  pollEvery: opt.duration({
    doc: 'How often followed files are looked at where the system does not tell of changes.',
    default: 1000,
    defaultText: '1s',
    min: 10,
    roles: ['source'],
  }),
  rotateSize: opt.size({
    doc: 'A file that has grown to this many bytes is followed by a new one; 0: never.',
    default: 0,
    min: 0,
    roles: ['sink'],
  }),
  rotateEvery: opt.duration({
    doc: 'A new file begins whenever so much time has passed, counted from midnight UTC; 0: only when a time variable in the path changes.',
    default: 0,
    min: 0,
    roles: ['sink'],
  }),
}
