import { opt } from '../../options/define'
import { framedSink, framedSource } from '../../options/shared'

export const options = {
  ...framedSource,
  ...framedSink,
  compression: opt.oneOf(['auto', 'none', 'gzip', 'zstd'], {
    doc: 'Names the compression of the files. auto: a name that ends in .gz means gzip, .zst means zstd, any other none.',
    default: 'auto',
  }),
  compressionLevel: opt.integer({
    doc: 'Sets the compression level: gzip takes 1 to 9, zstd takes 1 to 19.',
    defaultText: 'gzip 6, zstd 3',
    min: 1,
    max: 19,
    roles: ['sink'],
  }),
  follow: opt.flag({
    doc: 'Keeps reading what is appended, and new files that match. It goes on through rotation by rename and by truncation.',
    default: false,
    roles: ['source'],
  }),
  start: opt.string({
    doc: 'Says where to begin in a file without a stored position. oldest: at its beginning. latest: at its end. -N: at its last N lines. Compressed files are read to their end to find the place.',
    default: 'oldest',
    roles: ['source'],
  }),
  pollEvery: opt.duration({
    doc: 'Sets how often followed files are checked. The check finds changes that the operating system does not report.',
    default: 1000,
    defaultText: '1s',
    min: 10,
    roles: ['source'],
  }),
  rotateSize: opt.size({
    doc: 'Rotates the file when it has reached this size. 0 never rotates by size.',
    default: 0,
    min: 0,
    roles: ['sink'],
  }),
  rotateEvery: opt.duration({
    doc: 'Rotates the file at multiples of this interval, counted from midnight UTC. 0 rotates only when a time variable in the path changes.',
    default: 0,
    min: 0,
    roles: ['sink'],
  }),
}
