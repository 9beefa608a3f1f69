/** Shows one live line on a terminal: records in and out, their rate, and what is waiting. */
import type { FlowStatus } from '../core/flow/status'
import { formatSize } from '../kit/sizes'
import { writeStderr } from './stderr'

export interface LiveLine {
  /** Hides the live line while something else is printed. */
  around(print: () => void): void
  stop(): void
}

/** A gauge of a source with this prefix tells how many records one partition is behind. */
const LAG_PREFIX = 'lag '
const CLEAR = '\r\u001b[K'

export function liveLine(status: () => FlowStatus, everyMs = 500): LiveLine {
  let line = ''
  let before = { at: performance.now(), read: 0, bytes: 0 }
  const draw = (): void => {
    writeStderr(CLEAR + line)
  }
  const timer = setInterval(() => {
    const now = status()
    const at = performance.now()
    const seconds = (at - before.at) / 1000
    line = progressLine(now, (now.read - before.read) / seconds, (now.bytesRead - before.bytes) / seconds).slice(
      0,
      Math.max(20, (process.stderr.columns || 80) - 1),
    )
    before = { at, read: now.read, bytes: now.bytesRead }
    draw()
  }, everyMs)
  return {
    around(print) {
      writeStderr(CLEAR)
      print()
      if (line !== '') draw()
    },
    stop() {
      clearInterval(timer)
      writeStderr(CLEAR)
    },
  }
}

export function progressLine(status: FlowStatus, recordsPerSecond: number, bytesPerSecond: number): string {
  const states = [...status.sources, ...status.sinks]
    .filter(({ state }) => state !== 'running')
    .map(({ label, state, error }) => `${label} ${state}${error === undefined ? '' : `: ${error}`}`)
  const sinks = status.sinks
    .map(({ delivered, pending }) => `${delivered.toLocaleString('en')} out, ${pending.toLocaleString('en')} to go`)
    .join(' | ')
  const spool =
    status.spool === undefined ? '' : `, spool ${formatSize(status.spool.bytes)}${status.spool.full ? ' FULL' : ''}`
  const lags = status.sources.flatMap(({ gauges }) =>
    Object.entries(gauges).filter(([name, lag]) => name.startsWith(LAG_PREFIX) && lag > 0),
  )
  const [most] = lags.toSorted(([, a], [, b]) => b - a)
  const lag =
    most === undefined
      ? ''
      : `, ${lags.reduce((sum, [, each]) => sum + each, 0).toLocaleString('en')} behind${lags.length === 1 ? '' : `, most in ${most[0].slice(LAG_PREFIX.length)}: ${most[1].toLocaleString('en')}`}`
  const gaps = status.gaps > 0 ? `, ${status.gaps} gaps` : ''
  return `${status.read.toLocaleString('en')} in (${Math.round(recordsPerSecond).toLocaleString('en')}/s, ${formatSize(Math.round(bytesPerSecond))}/s) → ${sinks}${lag}${spool}${gaps}${states.length > 0 ? ` · ${states.join(' · ')}` : ''}`
}
