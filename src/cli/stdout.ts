/**
 * What a command answers on stdout. Whoever reads it may have enough, as head has, or its disk be full: no bug of ours.
 */
import { EXIT } from './exit'
import { writeStderr } from './stderr'

/** To be called before the first word is written. */
export function handleStdoutErrors(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') writeStderr(`manifold: the answer could not be written to stdout: ${error.message}\n`)
    process.exit(error.code === 'EPIPE' ? EXIT.readerGone : EXIT.disk)
  })
}

/** All that was written is out: a pipe takes it later than `write` returns. */
export function flushStdout(): Promise<void> {
  return new Promise((resolve) => {
    process.stdout.write('', () => {
      resolve()
    })
  })
}

export async function printAndExit(text: string): Promise<number> {
  handleStdoutErrors()
  process.stdout.write(text)
  await flushStdout()
  return EXIT.complete
}
