/** Runs a flow from argv on: it gives the plan a process, its signals, terminal and files. */
import { DiskFailed, FlowRunning, UsageError, isDiskError, lineOf } from '../core/errors'
import { EndpointFailed } from '../core/supervision/supervisor'
import type { FlowCommand } from '../core/flow/flow-state'
import { registry } from '../endpoints/registry'
import { parseCommandLine, type CommandLine } from '../options/command-line'
import { assemble, type Assembled, type AssembleOptions, type Drained } from '../plan/assemble'
import { EXIT, type ProcessEnd } from '../core/flow/exit-code'
import { issueEarlier, runFlow } from '../plan/run-flow'
import { createLog } from './log'
import type { RunLog } from '../plan/run-log'
import { tuneHeap } from './heap'
import { liveLine, type LiveLine } from './progress'
import { canAppend, receiptFile } from './receipt-file'
import { ignoreStderrErrors, writeStderr } from './stderr'
import { print } from './stdout'
import { version } from './version'

const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const

/** @param drain delivers the records in the spool of this flow, and reads no source */
export async function runCommand(
  argv: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
  drain?: Drained,
): Promise<ProcessEnd> {
  let line: CommandLine
  try {
    line = parseCommandLine(argv, env, registry)
  } catch (error) {
    return reportStartFailure(error, (text) => text)
  }
  const { flags, redactor } = line
  if (flags.help) return print(await (await import('./help.js')).overviewText())
  if (flags.version) return print(`manifold ${version()}\n`)
  const redact = (text: string): string => redactor.redact(text)
  const secret = hideSecrets(argv, redact)
  ignoreStderrErrors()
  const screen: Screen = { live: undefined }
  const planned = await plan(
    line,
    drain === undefined ? (secret ? {} : { command: commandOf(argv, env) }) : { drain },
    {
      screen,
      redact,
    },
  )
  if (typeof planned === 'number') return planned
  const { assembled, log } = planned

  tuneHeap()
  const { flow } = assembled
  const receipts = flags.receipt === undefined ? {} : { receipts: receiptFile(flags.receipt) }
  const earlier = await issueEarlier(assembled, { log, ...receipts })
  const signals = listenToSignals(flow, flags.grace, log)
  if (flags.progress === 'on' || (flags.progress === 'auto' && process.stderr.isTTY && !flags.quiet))
    screen.live = liveLine(() => flow.status())
  let metrics: { close(): Promise<void> } | undefined
  try {
    if (flags.metrics !== undefined)
      metrics = await (await import('./metrics.js')).serveMetrics(flags.metrics, () => flow.status(), log)
  } catch (error) {
    screen.live?.stop()
    await assembled.release()
    return reportStartFailure(error, redact)
  }
  return runFlow(assembled, earlier, {
    log,
    ...receipts,
    redact,
    stoppedBy: () => signals.first(),
    ended: async () => {
      screen.live?.stop()
      screen.live = undefined
      await metrics?.close()
    },
  })
}

/** Holds the live line, which comes and goes while the log is in use. */
interface Screen {
  live: LiveLine | undefined
}
interface Planned {
  readonly assembled: Assembled
  readonly log: RunLog
}

/** Returns the flow and its log, or the exit code of a line that cannot be run. */
async function plan(
  line: CommandLine,
  options: AssembleOptions,
  { screen, redact }: { readonly screen: Screen; readonly redact: (text: string) => string },
): Promise<Planned | number> {
  const { flags } = line
  const terminal = process.stderr.isTTY
  const json = flags.logFormat === 'json' ? (await import('./json-lines.js')).jsonLines() : undefined
  const makeLog = (quiet: boolean): RunLog =>
    createLog({
      ...(json === undefined ? {} : { json }),
      level: flags.quiet || flags.logLevel === 'silent' ? 'error' : flags.logLevel,
      terminal,
      journald: process.env['JOURNAL_STREAM'] !== undefined && flags.logFormat === 'auto',
      quiet,
      redact,
      around: (print) => {
        if (screen.live === undefined) print()
        else screen.live.around(print)
      },
    })
  let log = makeLog(false)
  // The plan logs before it is known whether the run is bounded, which decides on the log. Its lines wait for that log.
  const bufferedLines: ['debug' | 'info' | 'warn' | 'error', string, object | undefined][] = []
  let known = false
  const say =
    (level: 'debug' | 'info' | 'warn' | 'error') =>
    (message: string, facts?: object): void => {
      if (known) log[level](message, facts)
      else bufferedLines.push([level, message, facts])
    }
  const planLog = {
    debug: say('debug'),
    info: say('info'),
    warn: say('warn'),
    error: say('error'),
    lasting: (message: string): void => {
      log.lasting(message)
    },
  }
  let assembled: Assembled
  try {
    if (flags.receipt !== undefined) await canAppend(flags.receipt)
    const context = { env: process.env, redactor: line.redactor, exists: () => false }
    assembled = await assemble(line, context, planLog, options)
  } catch (error) {
    for (const [level, message, facts] of bufferedLines) log[level](message, facts)
    return reportStartFailure(error, redact)
  }
  log = makeLog(assembled.bounded && !terminal && flags.logFormat !== 'json' && !line.given.has('logLevel'))
  known = true
  for (const [level, message, facts] of bufferedLines) log[level](message, facts)
  for (const warning of line.warnings) log.warn(warning)
  for (const text of assembled.startLines) log.info(text)
  return { assembled, log }
}

/** The first signal stops the flow, the next one cuts it short. */
function listenToSignals(flow: Assembled['flow'], grace: number, log: RunLog): { first(): NodeJS.Signals | undefined } {
  let first: NodeJS.Signals | undefined
  const onSignal = (signal: NodeJS.Signals): void => {
    if (first === undefined) {
      first = signal
      log.info(`${signal}: stopping, within ${grace / 1000} s`)
      flow.stop()
    } else {
      log.warn(`${signal} again: cut short`)
      flow.abort()
    }
  }
  // A signal that is ignored, as by nohup, already has a handler of the launcher.
  for (const signal of SIGNALS) if (process.listenerCount(signal) === 0) process.on(signal, onSignal)
  return { first: () => first }
}

function reportStartFailure(error: unknown, redact: (text: string) => string): number {
  if (error instanceof UsageError) {
    for (const fault of error.faults) writeStderr(`manifold: ${redact(fault)}\n`)
    return EXIT.usage
  }
  if (
    error instanceof FlowRunning ||
    error instanceof DiskFailed ||
    isDiskError(error) ||
    error instanceof EndpointFailed
  ) {
    writeStderr(`manifold: ${redact(lineOf(error))}\n`)
    return error instanceof FlowRunning
      ? EXIT.flowInUse
      : error instanceof EndpointFailed
        ? error.role === 'source'
          ? EXIT.source
          : EXIT.sink
        : EXIT.disk
  }
  throw error
}

/** Removes passwords from the process list as soon as the process has started. */
function hideSecrets(argv: readonly string[], redact: (text: string) => string): boolean {
  const typed = [...argv, process.env['MANIFOLD_ARGS'] ?? ''].join(' ')
  const secret = redact(typed) !== typed
  if (secret) process.title = `manifold ${redact(argv.join(' '))}`
  return secret
}

function commandOf(argv: readonly string[], env: NodeJS.ProcessEnv): FlowCommand {
  const args = env['MANIFOLD_ARGS']
  return { argv, ...(args === undefined ? {} : { args }), cwd: workingDirectory() }
}

/** If the directory is gone, the line has no relative paths, because they would have been refused. */
function workingDirectory(): string {
  try {
    return process.cwd()
  } catch {
    return '/'
  }
}
