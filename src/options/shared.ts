/** Options that several endpoints have in common. */
import { opt } from './define'

const MIB = 1024 * 1024

/** Of sources that read byte streams. */
export const framedSource = {
  framing: opt.oneOf(['lines', 'envelope'], {
    doc: 'How records lie in the stream: newline-terminated bytes, or one JSON envelope a line that keeps key, headers and timestamp.',
    default: 'lines',
  }),
  maxRecord: opt.size({
    doc: 'Largest record; a larger one becomes a dead letter.',
    default: 16 * MIB,
    defaultText: '16MiB',
    min: 1,
    max: 1024 * MIB,
    roles: ['source'],
  }),
}

/** Of sinks that write byte streams. */
export const framedSink = {
  framing: framedSource.framing,
  newline: opt.oneOf(['reject', 'space'], {
    doc: 'What becomes of a newline inside a value with framing=lines: the record is a dead letter, or the newline becomes a space.',
    default: 'reject',
    roles: ['sink'],
  }),
}

export type Framing = 'lines' | 'envelope'
export type Newline = 'reject' | 'space'
