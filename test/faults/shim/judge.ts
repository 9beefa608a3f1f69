/**
 * What a chain of runs has to show: no record lost without being named, none twice that is not counted, receipts that
 * add up, an honest end.
 */
import { imbalance } from '../../../src/core/accounting/receipt'
import type { Chain, Run } from './chain'
import type { Expected } from './scenarios'
import type { Fault } from './shim'

/** Clocks of feed and program are one; a record's way from one to the other takes a moment. */
const SLACK_MS = 50
const MAX_LINES = 10
/** Faults of one chain that are listed. */
const MOST = 12

/** In words, each; none: all is well. */
export function faultsOf(chain: Chain): readonly string[] {
  const sinks = chain.runs.at(-1)?.outputs ?? []
  const faults = [
    ...endFaults(chain),
    ...receiptFaults(chain),
    ...sinks.flatMap((_, sink) => recordFaults(chain, sink)),
    ...deadFaults(chain),
  ]
  return faults.length <= MOST ? faults : [...faults.slice(0, MOST), `and ${faults.length - MOST} more`]
}

function endFaults({ runs, fault, world }: Chain): readonly string[] {
  const [spoiled, ...again] = runs
  const faults =
    spoiled === undefined
      ? []
      : [...spoiledFaults(spoiled, fault, world.well), ...told(spoiled).map((text) => `spoiled run: ${text}`)]
  const last = again.at(-1)
  if (last !== undefined && !endedWell(last, world.well))
    faults.push(`the line does not end well any more: ${endOf(last)}`)
  if (again.length > 1) faults.push(`it took ${again.length} runs to end well: ${again.map(endOf).join('; ')}`)
  return [...faults, ...again.flatMap((run) => told(run).map((text) => `run after it: ${text}`))]
}

/**
 * A disk that fails is 74; where the source or a sink is what failed, 3 or 4 say so as well; a run that got over it
 * ends well.
 */
function spoiledFaults(run: Run, fault: Fault | undefined, well: readonly number[]): readonly string[] {
  const struck = run.calls.filter(({ spoiled }) => spoiled).map(({ path }) => path)
  if (run.hung)
    return [`it hangs${run.stderr === '' ? ' in silence' : `: ${run.stderr.split('\n').slice(0, 3).join(' | ')}`}`]
  if (struck.length === 0 || fault === undefined)
    return endedWell(run, well) ? [] : [`it ends ${endOf(run)} though nothing was spoiled`]
  if (fault.mode === 'kill') return run.signal === 'SIGKILL' ? [] : [`it was killed and ends ${endOf(run)}`]
  const any = (what: RegExp): boolean => struck.some((path) => what.test(path))
  const codes = [
    ...well,
    ...(any(/^(?!socket$)/) ? [74] : []),
    ...(any(/^socket$|\/in\./) ? [3, 5] : []),
    ...(any(/^socket$|\/(out|a|b|dead)\./) ? [4] : []),
  ]
  return run.code !== null && codes.includes(run.code) ? [] : [`it ends ${endOf(run)}, not with ${codes.join(', ')}`]
}

export function told(run: Run): readonly string[] {
  const lines = run.stderr.split('\n').filter((line) => line !== '')
  const faults: string[] = []
  if (lines.length > MAX_LINES) faults.push(`${lines.length} lines on stderr`)
  if (lines.some((line) => /^\s+at /.test(line) || /this is a bug|^\(node:\d+\)/.test(line)))
    faults.push(`a bug on stderr: ${lines[0]?.slice(0, 200)}`)
  if (run.code !== null && run.code > 0 && lines.length === 0) faults.push(`exit ${run.code} and not a word`)
  return faults
}

export function receiptFaults({ receipts, torn, runs, world }: Chain): readonly string[] {
  const faults = torn.map((line) => `no receipt in the receipt file: ${line.slice(0, 80)}`)
  const ids = receipts.map(({ run }) => run)
  if (new Set(ids).size < ids.length) faults.push(`${ids.length - new Set(ids).size} receipts are there twice`)
  for (const receipt of receipts)
    for (const sink of receipt.sinks)
      if (imbalance(sink) !== 0) faults.push(`the receipt of ${sink.label} is off by ${imbalance(sink)}`)
  receipts.forEach((receipt, index) => {
    receipt.sinks.forEach((sink, i) => {
      const before = receipts[index - 1]?.sinks[i]?.spooled ?? 0
      if (sink.carriedIn !== before) faults.push(`${sink.carriedIn} carried in, where ${before} were spooled before`)
    })
  })
  const all = runs.length + (world.after === undefined ? 0 : 1)
  const well = runs.filter((run) => endedWell(run, world.well)).length
  if (ids.length > all) faults.push(`${ids.length} receipts of ${all} runs`)
  if (ids.length < well) faults.push(`${ids.length} receipts, though ${well} runs ended well`)
  return faults
}

export function recordFaults(chain: Chain, sink: number): readonly string[] {
  const { world, runs, receipts } = chain
  const { records, once = false, lastSecond = false, feed } = world.expected()
  const lines = runs.at(-1)?.outputs[sink] ?? []
  const places = new Map(records.map((text, index) => [text, index] as const))
  const seen = new Set<number>()
  const faults: string[] = []
  let before = -1
  for (const text of lines) {
    const index = places.get(text)
    if (index === undefined) {
      faults.push(`sink ${sink} holds what nobody sent: ${text.slice(0, 80)}`)
      continue
    }
    if (!seen.has(index) && index < before) faults.push(`sink ${sink}: record ${index + 1} comes after ${before + 1}`)
    before = Math.max(before, index)
    seen.add(index)
  }
  const counts = receipts.flatMap(({ sinks }) => sinks[sink] ?? [])
  const delivered = counts.reduce((sum, counted) => sum + counted.delivered, 0)
  const duplicates = counts.reduce((sum, counted) => sum + counted.possibleDuplicates, 0)
  const doubles = lines.length - seen.size
  const uncounted = lastSecond && runs[0] !== undefined && !endedWell(runs[0], world.well) ? records.length : 0
  if (doubles > duplicates + uncounted) faults.push(`sink ${sink}: ${doubles} records twice, ${duplicates} counted`)
  if (lines.length < delivered || lines.length > delivered + duplicates + uncounted)
    faults.push(
      `sink ${sink} holds ${lines.length}, receipts say ${delivered} delivered, ${duplicates} possible duplicates`,
    )
  const end = feed === undefined ? records.length : Math.max(-1, ...seen) + 1
  const missing = Array.from({ length: end }, (_, index) => index).filter((index) => !seen.has(index))
  if (missing.length === 0) return faults
  if (feed !== undefined) return [...faults, ...unnamed(chain, missing, places, feed)]
  const suffix = missing[0] === seen.size
  if (!once || !suffix || runs.some((run, index) => index === 0 && endedWell(run, world.well))) {
    faults.push(
      `sink ${sink}: ${missing.length} records are missing, from ${(missing[0] ?? 0) + 1}; runs ended ${runs.map(endOf).join('; ')}`,
    )
  }
  return faults
}

function unnamed(
  { receipts, runs }: Chain,
  missing: readonly number[],
  places: ReadonlyMap<string, number>,
  { sent, count }: NonNullable<Expected['feed']>,
): readonly string[] {
  const gaps = receipts
    .flatMap(({ gaps }) => gaps)
    .map(({ from, to }) => ({ from: Date.parse(from) - SLACK_MS, to: Date.parse(to) + SLACK_MS }))
  const delivered = runs.map(({ outputs }) =>
    (outputs[0] ?? []).map((text) => places.get(text) ?? 0).sort((a, b) => a - b),
  )
  // Between a run that had all it was asked for and the first record of the next one nobody listens.
  const pauses = delivered.flatMap((indices, run) => {
    const before = delivered[run - 1]?.length ?? 0
    const next = delivered[run + 1]?.find((index) => index > (indices.at(-1) ?? -1))
    return indices.length - before >= count && next !== undefined ? [{ after: indices.at(-1) ?? -1, before: next }] : []
  })
  const left = missing.filter(
    (index) =>
      !gaps.some(({ from, to }) => from <= sent(index) && sent(index) <= to) &&
      !pauses.some(({ after, before }) => after < index && index < before),
  )
  return left.length === 0
    ? []
    : [`${left.length} records are missing and in no gap, from ${(left[0] ?? 0) + 1}; ${gaps.length} gaps`]
}

/** Every record that was rejected lies in the dead-letter file, as often as it was rejected. */
function deadFaults({ world, receipts, runs }: Chain): readonly string[] {
  const dead = world.dead?.()
  if (dead === undefined) return []
  const rejected = receipts.reduce((sum, { sinks }) => sum + (sinks[0]?.rejected ?? 0), 0)
  const different = new Set(dead)
  const again =
    world.expected().lastSecond === true && runs[0] !== undefined && !endedWell(runs[0], world.well)
      ? different.size
      : 0
  const duplicates = again + receipts.reduce((sum, { sinks }) => sum + (sinks[0]?.possibleDuplicates ?? 0), 0)
  const faults = dead
    .filter((text) => !/^no json \d+0$/.test(text))
    .map((text) => `no dead letter of this flow: ${text.slice(0, 80)}`)
  if (different.size !== 10) faults.push(`${different.size} dead letters of 10`)
  if (dead.length - different.size > duplicates)
    faults.push(`${dead.length - different.size} dead letters twice, ${duplicates} possible duplicates counted`)
  if (rejected < different.size || rejected > dead.length)
    faults.push(`${dead.length} dead letters, receipts say ${rejected} rejected`)
  return faults
}

function endedWell({ code }: Run, well: readonly number[]): boolean {
  return code !== null && well.includes(code)
}
function endOf({ code, signal, stderr }: Run): string {
  return `${signal ?? `with ${code}`}${stderr === '' ? '' : ` (${stderr.split('\n')[0]?.slice(0, 160)})`}`
}
