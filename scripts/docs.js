/**
 * Writes docs/reference/SCHEME.md for every endpoint, docs/reference/flags.md, and the list of endpoints between the
 * markers of README.md, from the declarations (as built: run `npm run build` first). --check writes nothing and exits
 * with 1 where a page is not current, or where a link or the name of a file leads nowhere. A page whose endpoint is
 * gone is removed.
 */
const { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } = require('node:fs')
const { dirname, join } = require('node:path')

const ROOT = join(__dirname, '..')
const BEGIN = '<!-- endpoints:begin -->'
const END = '<!-- endpoints:end -->'
const BANNER = '<!-- Made by `npm run docs` from the declarations of the options. -->\n\n'

function wanted() {
  const { registry } = require(join(ROOT, 'dist/endpoints/registry.js'))
  const { endpointLinks, flagsPage, referencePage } = require(join(ROOT, 'dist/options/explain.js'))
  const { flags } = require(join(ROOT, 'dist/options/flags.js'))
  const pages = new Map(
    registry.map((endpoint) => [`docs/reference/${endpoint.schemes[0]}.md`, BANNER + referencePage(endpoint)]),
  )
  pages.set('docs/reference/flags.md', BANNER + flagsPage(flags))
  const readme = join(ROOT, 'README.md')
  const text = existsSync(readme) ? readFileSync(readme, 'utf8') : ''
  const begin = text.indexOf(BEGIN)
  const end = text.indexOf(END)
  if (begin === -1 || end < begin) throw new Error(`README.md has no ${BEGIN} ... ${END}`)
  pages.set('README.md', `${text.slice(0, begin + BEGIN.length)}\n\n${endpointLinks(registry)}\n\n${text.slice(end)}`)
  return pages
}

/** Finds links to files, and names of the project's files, that lead nowhere, in all pages except the changelog. */
function deadLinks() {
  const pages = ['README.md', 'CONTRIBUTING.md', ...below('docs')].filter((page) => existsSync(join(ROOT, page)))
  return pages.flatMap((page) => {
    const text = readFileSync(join(ROOT, page), 'utf8')
    const links = [...text.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)].map(([, link]) => link)
    const named = [...text.matchAll(/`((?:src|test|scripts|docs|bin)\/[\w./-]*)`/g)].map(([, file]) => file)
    return [
      ...links.filter((link) => !/^[a-z]+:/.test(link) && !existsSync(join(ROOT, dirname(page), link))),
      ...named.filter((file) => ![file, `${file}.ts`, `${file}.test.ts`].some((each) => existsSync(join(ROOT, each)))),
    ].map((link) => ({ page, link }))
  })
}
function below(folder) {
  return readdirSync(join(ROOT, folder), { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory()
      ? below(`${folder}/${entry.name}`)
      : entry.name.endsWith('.md')
        ? [`${folder}/${entry.name}`]
        : [],
  )
}

function main(check) {
  const folder = join(ROOT, 'docs/reference')
  const pages = wanted()
  const stale = [...pages]
    .filter(([path, text]) => !existsSync(join(ROOT, path)) || readFileSync(join(ROOT, path), 'utf8') !== text)
    .map(([path]) => path)
  const gone = (existsSync(folder) ? readdirSync(folder) : [])
    .map((name) => `docs/reference/${name}`)
    .filter((path) => path.endsWith('.md') && !pages.has(path))
  if (check) {
    const dead = deadLinks()
    for (const path of [...stale, ...gone]) console.error(`${path} is not current: npm run docs`)
    for (const { page, link } of dead) console.error(`${page}: the link ${link} leads nowhere`)
    return stale.length + gone.length + dead.length === 0 ? 0 : 1
  }
  mkdirSync(folder, { recursive: true })
  for (const path of stale) writeFileSync(join(ROOT, path), pages.get(path))
  for (const path of gone) rmSync(join(ROOT, path))
  console.log(
    stale.length + gone.length === 0
      ? 'all pages are current'
      : [...stale.map((path) => `wrote ${path}`), ...gone.map((path) => `removed ${path}`)].join('\n'),
  )
  return 0
}

try {
  process.exitCode = main(process.argv.includes('--check'))
} catch (error) {
  console.error(
    `docs: ${error.code === 'MODULE_NOT_FOUND' ? `the program is not built (npm run build): ${error.message.split('\n', 1)[0]}` : error.message}`,
  )
  process.exitCode = 1
}
