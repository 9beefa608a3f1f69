/**
 * Issues receipts: as a line of the log, and as a line of `--receipt FILE`. A receipt that cannot be written stays with
 * the flow, and the next start issues it. A receipt that was written just before a kill is found in the file and is not
 * written again.
 */
import { constants } from 'node:fs'
import { access, open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { UsageError, lineOf } from '../core/errors'
import { imbalance, receiptLine, type Receipt } from '../core/accounting/receipt'
import { appendLine } from './append-line'
import type { CliLog } from './log'

/** If receipts can never be written, this many of the newest are kept. */
const MAX_UNISSUED = 100
/** A receipt that was written just before a kill is searched in this many bytes at the end of the file. */
const SEARCHED_BYTES = 4 * 1024 * 1024

export interface Issuing {
  /** The receipts are of earlier runs, and may have been issued already. */
  readonly earlier: boolean
  /** The log does not show them. */
  readonly silent?: boolean
}

/** @returns the receipts that could not be issued, for the next start */
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
    // A FIFO without reader is no fault of the disk, and may never get a reader.
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

/** The check is made at the start, because at the end nobody could do anything about it. */
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
