/** The flags of the command line, declared as options are. What is not tied to an endpoint stands here, once. */
import { parseDuration } from '../kit/durations'
import { opt, type OptionFacts, type OptionsOf } from './define'
import { parseTime } from './times'

const MIB = 1024 * 1024

export interface Append {
  /** Of the member. */
  readonly name: string
  /**
   * text: the value is a string. json: the value is JSON as it stands. Both may hold {now}, {now:unix}, {hostname},
   * {uuid}, {source}.
   */
  readonly kind: 'text' | 'json'
  readonly value: string
}

/** Variables of `--append`; those in `numeric` may stand outside quotes in JSON. */
export const APPEND_VARIABLES = {
  all: ['now', 'now:unix', 'hostname', 'uuid', 'source'],
  numeric: ['now:unix'],
} as const

/** `NAME=VALUE` or `NAME:=JSON`. Throws. */
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
      doc: 'Adds a member to each JSON record: NAME=VALUE as a string, NAME:=JSON as it stands. {now} {now:unix} {hostname} {uuid} {source} are replaced; an existing member is replaced. A byte-order mark before a record is left out.',
      argument: 'NAME=VALUE',
    }),
    default: [] as readonly Append[],
    parse: (raw: string): readonly Append[] => [parseAppend(raw)],
  },
  spool: opt.string({
    doc: 'Keeps records in a spool on disk before the sinks; its files lie in this directory.',
    argument: 'DIR',
    defaultText: 'in the state, where sinks need one (s3, several sinks) or the source cannot repeat (ws)',
  }),
  noSpool: opt.flag({ doc: 'No spool, where one sink that does not need it allows that.', default: false }),
  spoolMax: opt.size({
    doc: 'Largest size of the spool; reading waits beyond it.',
    defaultText: 'what the disk has, less --disk-reserve',
    min: MIB,
  }),
  diskReserve: opt.size({
    doc: 'Space that the spool leaves free on its disk.',
    defaultText: 'the larger of 1GiB and 5 %, at most a quarter of the file system',
  }),
  name: opt.string({
    doc: 'Name of the flow: its state is found under it.',
    argument: 'NAME',
    defaultText: 'made from the endpoints',
  }),
  state: opt.string({
    doc: 'Directory of state.',
    argument: 'DIR',
    defaultText: '$STATE_DIRECTORY, else $XDG_STATE_HOME/manifold',
  }),
  until: parsed(
    {
      doc: 'Where to stop: end (as it stands at the start) or a TIME (2026-01-31T12:00:00Z, -1h); idle=DURATION and count=N may follow or stand alone.',
      argument: 'end|TIME',
    },
    parseUntil,
  ),
  idle: opt.duration({ doc: 'Stops when nothing was read for so long.', min: 1 }),
  count: opt.integer({ doc: 'Stops after so many records.', min: 1 }),
  giveUpAfter: parsed(
    {
      doc: 'Ends the run after so long a continuous failure of an endpoint, or of a disk that is full; never; first: when a new connection cannot be made.',
      argument: 'DURATION|never|first',
      defaultText: 'never where a spool keeps the records and the run has no end of its own, else 10m',
    },
    parseGiveUp,
  ),
  stallTimeout: opt.duration({
    doc: 'Work is waiting and nothing moves for so long: the endpoint is reopened; 0: never.',
    default: 300_000,
    defaultText: '5m',
  }),
  grace: opt.duration({ doc: 'Time to drain after SIGTERM, SIGINT or SIGHUP.', default: 30_000, defaultText: '30s' }),
  linger: opt.duration({
    doc: 'How long small deliveries are gathered into one write.',
    default: 5,
    defaultText: '5ms',
    max: 60_000,
  }),
  deadLetter: opt.string({
    doc: 'Where records go that cannot be delivered, as envelopes; discard: drops them, counted. Options of its endpoint follow it.',
    argument: 'URI',
    defaultText: "rejected.ndjson in the flow's state; without state the run ends with 5",
  }),
  receipt: opt.string({ doc: 'Writes the receipt of the run, as JSON, to this file.', argument: 'FILE' }),
  metrics: parsed(
    {
      doc: 'Serves Prometheus metrics, /healthz, /readyz and /status, or writes metrics to a file.',
      argument: 'HOST:PORT|unix:PATH|file:PATH.prom',
    },
    parseMetrics,
  ),
  logFormat: opt.oneOf(['auto', 'text', 'json'], {
    doc: 'How log lines on stderr look; auto: level prefixes under journald, text elsewhere.',
    default: 'auto',
  }),
  logLevel: opt.oneOf(['debug', 'info', 'warn', 'error', 'silent'], {
    doc: 'The least level that is logged.',
    default: 'info',
  }),
  quiet: { ...opt.flag({ doc: 'Errors alone: no start lines, no progress.', default: false }), short: 'q' },
  progress: opt.oneOf(['auto', 'on', 'off'], { doc: 'The live line on stderr; auto: on a terminal.', default: 'auto' }),
  memory: opt.size({
    doc: 'Bytes of records held in memory, over all endpoints.',
    default: 64 * MIB,
    defaultText: '64MiB',
    min: MIB,
  }),
  help: { ...opt.flag({ doc: 'Shows help.', default: false }), short: 'h' },
  version: { ...opt.flag({ doc: 'Shows the version.', default: false }), short: 'V' },
}
export type Flags = OptionsOf<typeof flags>

/** Words that may follow a flag's value, or stand for it. */
export const FLAG_WORDS: Readonly<Record<string, readonly string[]>> = { until: ['idle', 'count'] }

/** at: epoch milliseconds. */
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

/** Where metrics go. An empty host is loopback: what a flow tells is nobody else's unless asked. */
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
