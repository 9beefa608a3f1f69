/** The file of `--receipt`. */
import { constants } from 'node:fs'
import { access, open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { UsageError, lineOf } from '../core/errors'
import type { ReceiptStore } from '../plan/receipts'
import { appendLine } from './append-line'

/** A receipt that was written just before a kill is searched in this many bytes at the end of the file. */
const SEARCHED_BYTES = 4 * 1024 * 1024

/** Returns the file of `--receipt` as the flow uses it: one line for each run. */
export function receiptFile(path: string): ReceiptStore {
  return {
    name: path,
    append: (receipt) => appendLine(path, JSON.stringify(receipt)),
    contains: (run) => containsReceipt(path, run),
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
