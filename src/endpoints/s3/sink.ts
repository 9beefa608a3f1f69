import type { EndpointContext, Log, Outcome, Sink, Write } from '../../core/contract'
import type { CreateSink } from '../../options/define'
import { type ServerQuirks, openBucket, type Bucket } from './client'
import { checkDirectory } from './local-copy'
import { BufferPool } from './buffer-pool'
import type { options } from './options'
import { destinationOf, segmentPolicy } from './policy'
import { Uploader } from './upload'

/**
 * Parts on their way, over all uploads: with the SDK and a spool beside them the process stays below 200 MiB, also
 * after 10 GB.
 */
const PART_BUFFER_BYTES = 24 * 1024 * 1024

export const create: CreateSink<typeof options> = (target): Sink => {
  const { options: o } = target
  const { bucket, folder } = destinationOf(target)
  const pool = new BufferPool(PART_BUFFER_BYTES)
  const quirks: ServerQuirks = { ignoresConditions: false, etagIsMd5: false }
  let uploaded = 0
  let context: EndpointContext | undefined
  let destination: Bucket | undefined
  const uploader = new Uploader(
    {
      folder,
      partSize: o.partSize,
      compressionLevel: o.compressionLevel,
      keepLocal: o.keepLocal,
      recheckedWrites: 4 * o.uploads,
    },
    pool,
    (bytes) => {
      uploaded += bytes
      context?.gauge('bytes uploaded', uploaded)
    },
  )
  return {
    limits: {
      maxEntries: Number.MAX_SAFE_INTEGER,
      maxBytes: Number.MAX_SAFE_INTEGER,
      maxEntryBytes: Number.MAX_SAFE_INTEGER,
      inFlight: o.uploads,
      ordered: false,
      unit: 'segment',
      confirms: 'each',
    },
    wants: o.framing === 'envelope' ? 'entries' : 'lines',
    segments: segmentPolicy(target),

    async open(ctx) {
      context = ctx
      if (o.keepLocal !== undefined) await checkDirectory(o.keepLocal)
      const given = await target.resolve()
      destination = await openBucket(given.options, bucket, folder, process.env, quirks, ctx.log, ctx.signal)
    },

    async write({ payload, attempt }: Write, signal: AbortSignal): Promise<Outcome> {
      if (!('kind' in payload)) throw new Error('S3 takes segments, not batches')
      if (destination === undefined || context === undefined) throw new Error('a write before open')
      const log: Log = context.log
      return uploader.upload(payload, attempt, destination, log, signal)
    },

    close() {
      destination?.close()
      destination = undefined
      pool.clear()
      return Promise.resolve()
    },
  }
}
