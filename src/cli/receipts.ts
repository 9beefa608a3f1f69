/**
 * Where receipts go: a line of the log, and a line of `--receipt FILE`. One that could not be written stays with the
 * flow, and the next start issues it; one that was written just before a kill is found in the file and not written
 * again.
 */
import { constants } from 'node:fs'
import { access, open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { UsageError, lineOf } from '../core/errors'
import { imbalance, receiptLine, type Receipt } from '../core/receipt'
import { appendLine } from './append-line'
import type { CliLog } from './log'

/** Of a flow whose receipts can never be written, the newest are kept. */
const MAX_UNISSUED = 100
/** So far back a receipt that was written just before a kill is looked for. */
const SEARCHED_BYTES = 4 * 1024 * 1024

export interface Issuing {
  /** Of runs before this one, and perhaps issued already. */
  readonly earlier: boolean
  /** Nothing in the log. */
  readonly silent?: boolean
}

/** @returns those that could not be issued and that the next start may issue */
export async function issueAll(
  receipts: readonly Receipt[],
  file: string | undefined,
  log: CliLog,
  how: Issuing,
): Promise<readonly Receipt[]> {
  const left: Receipt[] = []
  for (const receipt of receipts) if (!(await issue(receipt, file, log, how))) left.push(receipt)
  return left.slice(-MAX_UNISSUED)
}

async function issue(
  receipt: Receipt,
  file: string | undefined,
  log: CliLog,
  { earlier, silent = false }: Issuing,
): Promise<boolean> {
  const wrong = receipt.sinks.find((sink) => imbalance(sink) !== 0)
  if (wrong !== undefined)
    log.error(`the receipt of ${wrong.label} does not add up: off by ${imbalance(wrong)}; please report this`)
  log[silent ? 'debug' : 'info'](receiptLine(receipt))
  if (file === undefined) return true
  try {
    if (!earlier || !(await containsReceipt(file, receipt.run))) await appendLine(file, JSON.stringify(receipt))
    return true
  } catch (error) {
    log.error(`the receipt could not be written to ${file}: ${lineOf(error)}`)
    // A FIFO that nobody reads says nothing of a disk, and nobody may ever read it.
    return (error as NodeJS.ErrnoException).code === undefined
  }
}

async function containsReceipt(path: string, run: string): Promise<boolean> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  })
  if (file === undefined) return false
  try {
    const facts = await file.stat()
    if (!facts.isFile()) return false
    const tail = Buffer.alloc(Math.min(facts.size, SEARCHED_BYTES))
    const { bytesRead } = await file.read(tail, 0, tail.length, facts.size - tail.length)
    return tail.subarray(0, bytesRead).includes(`"run":"${run}"`)
  } finally {
    await file.close()
  }
}

/** Told at the start: at the end it would be the one thing that went wrong, and nobody could do anything about it. */
export async function canAppend(file: string): Promise<void> {
  try {
    const there = await stat(file).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    })
    if (there?.isDirectory() === true) throw new Error('it is a directory')
    await access(there === undefined ? dirname(file) : file, constants.W_OK)
  } catch (error) {
    throw new UsageError([`--receipt ${file} cannot be written: ${lineOf(error)}`])
  }
}
