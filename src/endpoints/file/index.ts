/**
 * Files, both ways.
 *
 * - A file that is read is a partition of its own, named by the path it was found under; two at once of one path
 *   (rotation) are told apart by `#2`. What it is, its position says: inode, birth time and content. A renamed file is
 *   gone on with, a truncated or replaced one is a new one.
 * - Names are bytes: one that is not UTF-8 is matched and read as well (`kit/file-names.ts`). A path that is there is
 *   no pattern.
 * - Only whole lines are delivered while a file is followed; a last line without newline counts once its file is
 *   finished.
 * - A file that is damaged, or closed to us, keeps no other unread: what can be read of it is delivered, the rest is a
 *   gap, in every run anew. Only where nothing at all can be read the source has failed.
 * - What the spool has lost is read again from the very file, known by its content, under whatever name rotation gave
 *   it.
 * - Of followed files about sixteen are open at once; one that rests makes way.
 * - A file that is written is confirmed by fdatasync, its name by fsync of the folder. Others may write to it too: each
 *   write goes to the end as it stands, in one piece. What a kill left torn is cut off before the next write, where it
 *   is known to be ours.
 */
import { compressionOf } from '../../codec/compression'
import { isGlob } from '../../kit/glob-pattern'
import { defineEndpoint, type OptionsOf } from '../../options/define'
import { options } from './options'
import { startOf } from './start'
import { templateFaults } from './template'

function levelFaults({ compression, compressionLevel }: OptionsOf<typeof options>, path: string): readonly string[] {
  const kind = compression === 'auto' ? compressionOf(path) : compression
  if (compressionLevel === undefined || kind === 'zstd') return []
  if (kind === 'none')
    return ['compression-level needs compression=gzip or compression=zstd, or a path that ends in .gz or .zst']
  return compressionLevel > 9 ? ['compression-level: 9 is the most for gzip'] : []
}

export default defineEndpoint({
  schemes: ['file'],
  summary: 'Files: read, followed, written and rotated',
  forms: ['file:PATH', "file:'GLOB'", 'PATH'],
  examples: [
    "manifold --from file:'/var/log/app/*.ndjson.gz' --to s3://lake/app",
    'manifold --from file:/var/log/app.ndjson follow start=latest --to -',
    "manifold --from - --to file:'/data/{yyyy}/{mm}/{dd}/feed-{HH}.ndjson.gz' rotate-size=256MiB",
  ],
  form: 'opaque',
  options,
  files: async (given, role) => (await import('./files.js')).filesOf(given, role),
  check: ({ uri, options: given }, role) => {
    if (uri.path === '') return ['file: needs a path, such as file:/var/log/app.ndjson']
    if (role === 'sink')
      return [
        ...(isGlob(uri.path.replace(/\{\w+\}/g, '')) ? [`file:${uri.path} is a pattern; one file is written to`] : []),
        ...templateFaults(uri.path, given),
        ...levelFaults(given, uri.path),
      ]
    try {
      startOf(given.start)
    } catch (error) {
      return [(error as Error).message]
    }
    return []
  },
  source: { position: 'here', bounded: true, load: async () => (await import('./source.js')).create },
  sink: { load: async () => (await import('./sink.js')).create },
})
