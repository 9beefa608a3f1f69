/** Declares options that several endpoints have in common. */
import { Fatal } from '../core/errors'
import { opt } from './define'

const MIB = 1024 * 1024

/** Sources of byte streams have these options. */
export const framedSource = {
  framing: opt.oneOf(['lines', 'envelope'], {
    doc: "Says how records lie in the byte stream. lines: each record is one line. envelope: each line is a JSON envelope that keeps the record's key, headers and timestamp.",
    default: 'lines',
  }),
  maxRecord: opt.size({
    doc: 'Sets the largest record size. A larger record becomes a dead letter.',
    default: 16 * MIB,
    defaultText: '16MiB',
    min: 1,
    max: 1024 * MIB,
    roles: ['source'],
  }),
}

/** Sinks of byte streams have these options. */
export const framedSink = {
  framing: framedSource.framing,
  newline: opt.oneOf(['reject', 'space'], {
    doc: 'Says what happens with framing=lines to a value that contains a newline. reject: the record becomes a dead letter. space: each newline becomes a space.',
    default: 'reject',
    roles: ['sink'],
  }),
}

export type Framing = 'lines' | 'envelope'
export type Newline = 'reject' | 'space'

/** The fault of a source with `on-gap=fail`. @param why says which records are gone */
export function gapFault(why: string): Fatal {
  return new Fatal(`${why}, and on-gap=fail: with on-gap=oldest or latest reading goes on there`)
}
