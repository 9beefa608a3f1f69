/**
 * Declares the flags of the command line, in the same way as options. A setting that belongs to no endpoint is a flag.
 */
import { parseDuration } from '../kit/durations'
import { opt, type OptionFacts, type OptionsOf } from './define'
import { parseTime } from './times'

const MIB = 1024 * 1024

export interface Append {
  /** The name of the member. */
  readonly name: string
  /**
   * With text the value is a string, with json it is JSON. Both may contain {now}, {now:unix}, {hostname}, {uuid} and
   * {source}.
   */
  readonly kind: 'text' | 'json'
  readonly value: string
}

/** The variables of `--append`. Those in `numeric` may stand outside quotes in JSON. */
export const APPEND_VARIABLES = {
  all: ['now', 'now:unix', 'hostname', 'uuid', 'source'],
  numeric: ['now:unix'],
} as const

/** Parses `NAME=VALUE` or `NAME:=JSON`. It throws what is expected instead. */
export function parseAppend(raw: string): Append {
  const equals = raw.indexOf('=')
  const json = equals > 0 && raw[equals - 1] === ':'
  const name = raw.slice(0, Math.max(0, json ? equals - 1 : equals))
  if (name === '') throw new Error('NAME=VALUE or NAME:=JSON is expected')
  const value = raw.slice(equals + 1)
  if (!json) return { name, kind: 'text', value }
  if (!/\{(env|file|exec):/.test(value)) {
    const sample = APPEND_VARIABLES.all.reduce(
      (text, variable) =>
        text.replaceAll(
          `{${variable}}`,
          (APPEND_VARIABLES.numeric as readonly string[]).includes(variable) ? '0' : 'x',
        ),
      value,
    )
    try {
      JSON.parse(sample)
    } catch {
      throw new Error(`what follows ${name}:= is no JSON; ${name}=VALUE takes any text`)
    }
  }
  return { name, kind: 'json', value }
}

function parsed<T, const F extends OptionFacts<T>>(
  facts: F,
  parse: (raw: string) => T,
): F & { readonly kind: 'string'; parse(raw: string): T } {
  return { ...facts, kind: 'string', parse }
}

export const flags = {
  append: {
    ...opt.list({
      doc: 'Adds a member to each JSON record and replaces one of the same name. NAME=VALUE adds a string, NAME:=JSON adds JSON. {now} {now:unix} {hostname} {uuid} {source} are variables. A byte-order mark before a record is removed.',
      argument: 'NAME=VALUE',
    }),
    default: [] as readonly Append[],
    parse: (raw: string): readonly Append[] => [parseAppend(raw)],
  },
  spool: opt.string({
    doc: 'Keeps records in a spool on disk, in this directory, until the sinks have confirmed them.',
    argument: 'DIR',
    defaultText: 'in the state, where sinks need one (s3, several sinks) or the source cannot repeat (ws)',
  }),
  noSpool: opt.flag({
    doc: 'Runs without a spool. One sink that can do without it must be the only one.',
    default: false,
  }),
  spoolMax: opt.size({
    doc: 'Limits the size of the spool. Reading waits when it is reached.',
    defaultText: 'what the disk has, less --disk-reserve',
    min: MIB,
  }),
  diskReserve: opt.size({
    doc: 'Sets the space that the spool leaves free on its disk.',
    defaultText: 'the larger of 1GiB and 5 %, at most a quarter of the file system',
  }),
  name: opt.string({
    doc: 'Names the flow. Its state is stored under this name.',
    argument: 'NAME',
    defaultText: 'made from the endpoints',
  }),
  state: opt.string({
    doc: 'Names the directory of state.',
    argument: 'DIR',
    defaultText: '$STATE_DIRECTORY, else $XDG_STATE_HOME/manifold',
  }),
  until: parsed(
    {
      doc: 'Stops at this point: end (of the sources as they are at the start), or a TIME such as 2026-01-31T12:00:00Z or -1h. idle=DURATION and count=N may follow it or replace it.',
      argument: 'end|TIME',
    },
    parseUntil,
  ),
  idle: opt.duration({ doc: 'Stops when nothing was read for this long.', min: 1 }),
  count: opt.integer({ doc: 'Stops after this many records.', min: 1 }),
  giveUpAfter: parsed(
    {
      doc: 'Ends the run when an endpoint has failed, or a disk was full, for this long without a break. never: it is tried for ever. first: the run ends at the first connection that cannot be made.',
      argument: 'DURATION|never|first',
      defaultText: 'never where a spool keeps the records and the run has no end of its own, else 10m',
    },
    parseGiveUp,
  ),
  stallTimeout: opt.duration({
    doc: 'Reopens an endpoint when records are waiting and nothing has moved for this long. 0 never does.',
    default: 300_000,
    defaultText: '5m',
  }),
  grace: opt.duration({
    doc: 'Sets the time to finish after SIGTERM, SIGINT or SIGHUP.',
    default: 30_000,
    defaultText: '30s',
  }),
  linger: opt.duration({
    doc: 'Sets how long small deliveries are collected into one write.',
    default: 5,
    defaultText: '5ms',
    max: 60_000,
  }),
  deadLetter: opt.string({
    doc: 'Names where records go that cannot be delivered. They are written as envelopes. discard: drops and counts them. Options of the endpoint follow its URI.',
    argument: 'URI',
    defaultText: "rejected.ndjson in the flow's state; without state the run ends with 5",
  }),
  receipt: opt.string({ doc: 'Appends the receipt of the run to this file, as a line of JSON.', argument: 'FILE' }),
  metrics: parsed(
    {
      doc: 'Serves Prometheus metrics, /healthz, /readyz and /status at this address, or writes metrics to this file.',
      argument: 'HOST:PORT|unix:PATH|file:PATH.prom',
    },
    parseMetrics,
  ),
  logFormat: opt.oneOf(['auto', 'text', 'json'], {
    doc: 'Chooses the format of log lines on stderr. auto: with level prefixes under journald, as text elsewhere.',
    default: 'auto',
  }),
  logLevel: opt.oneOf(['debug', 'info', 'warn', 'error', 'silent'], {
    doc: 'Sets the lowest level that is logged.',
    default: 'info',
  }),
  quiet: { ...opt.flag({ doc: 'Prints errors only: no start lines and no progress.', default: false }), short: 'q' },
  progress: opt.oneOf(['auto', 'on', 'off'], {
    doc: 'Shows a live progress line on stderr. auto: only on a terminal.',
    default: 'auto',
  }),
  memory: opt.size({
    doc: 'Limits the bytes of records in memory, over all endpoints.',
    default: 64 * MIB,
    defaultText: '64MiB',
    min: MIB,
  }),
  help: { ...opt.flag({ doc: 'Shows the help.', default: false }), short: 'h' },
  version: { ...opt.flag({ doc: 'Shows the version.', default: false }), short: 'V' },
}
export type Flags = OptionsOf<typeof flags>

/** These words may follow the value of a flag, or replace it. */
export const FLAG_WORDS: Readonly<Record<string, readonly string[]>> = { until: ['idle', 'count'] }

/** `at` is in milliseconds since the epoch. */
export type UntilPoint = { readonly kind: 'end' } | { readonly kind: 'time'; readonly at: number }

function parseUntil(raw: string): UntilPoint {
  if (raw.toLowerCase() === 'end') return { kind: 'end' }
  let at: number
  try {
    at = parseTime(raw)
  } catch (error) {
    throw new Error(`end, a time, idle=DURATION or count=N is expected; ${(error as Error).message}`, { cause: error })
  }
  if (at > Date.now())
    throw new Error("this time is yet to come: a time limit is the caller's, as in timeout 1h manifold ...")
  return { kind: 'time', at }
}

/** Says where metrics go. An empty host means loopback, so that a flow is visible to others only on request. */
export type MetricsTarget =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'file'; readonly path: string }

function parseMetrics(raw: string): MetricsTarget {
  const [, kind, path] = /^(unix|file):(.+)$/s.exec(raw) ?? []
  if (path !== undefined) return kind === 'unix' ? { kind, path } : { kind: 'file', path }
  const [, bracketed, host = '', port] = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(raw) ?? []
  if (port === undefined || Number(port) > 65_535) throw new Error('HOST:PORT, unix:PATH or file:PATH.prom is expected')
  return { kind: 'tcp', host: bracketed ?? (host === '' ? '127.0.0.1' : host), port: Number(port) }
}

function parseGiveUp(raw: string): number | 'never' | 'first' {
  const word = raw.toLowerCase()
  return word === 'never' || word === 'first' ? word : parseDuration(raw)
}
