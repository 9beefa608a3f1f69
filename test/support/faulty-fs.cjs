/**
 * Preloaded into a process (`NODE_OPTIONS=--require`): counts its calls on files below a folder and lets one of them,
 * or all from there on, fail or kill it. MANIFOLD_TEST_FAULT = { below, calls (names; absent: all), at (absent: none),
 * code, onwards, count (a file that is given the number of calls at exit) }
 */
const fs = require('node:fs')

const fault = JSON.parse(process.env.MANIFOLD_TEST_FAULT ?? 'null')
// The launcher is not what is looked at.
if (fault !== null && !process.argv[1]?.endsWith('fastbuild.js')) install(fault)

function install({ below, calls, at, code, onwards, count }) {
  const paths = new WeakMap()
  let seen = 0
  const due = (name, path) => {
    if (typeof path !== 'string' || !path.startsWith(below) || (calls !== undefined && !calls.includes(name)))
      return undefined
    seen++
    if (at === undefined || (onwards === true ? seen < at : seen !== at)) return undefined
    if (code === 'kill') process.kill(process.pid, 'SIGKILL')
    return Object.assign(new Error(`${code}: injected, ${name}${path === undefined ? '' : ` '${path}'`}`), {
      code,
      syscall: name,
      errno: -5,
      path,
    })
  }
  const promised = (owner, name, pathOf) => {
    const real = owner[name]
    owner[name] = async function (...args) {
      const error = due(name, pathOf(this, args))
      if (error !== undefined) throw error
      return real.apply(this, args)
    }
  }
  const byFirst = (_, [path]) => path
  const byHandle = (handle) => paths.get(handle)
  for (const name of [
    'mkdir',
    'readdir',
    'stat',
    'lstat',
    'realpath',
    'rename',
    'unlink',
    'rm',
    'rmdir',
    'readFile',
    'writeFile',
    'appendFile',
    'statfs',
    'access',
    'chmod',
    'truncate',
  ])
    promised(fs.promises, name, byFirst)
  const open = fs.promises.open
  let patched = false
  fs.promises.open = async function (path, ...rest) {
    const error = due('open', path)
    if (error !== undefined) throw error
    const handle = await open.call(this, path, ...rest)
    if (!patched) {
      patched = true
      const prototype = Object.getPrototypeOf(handle)
      for (const name of [
        'write',
        'writev',
        'read',
        'datasync',
        'sync',
        'truncate',
        'stat',
        'appendFile',
        'writeFile',
        'readFile',
      ])
        promised(prototype, name, byHandle)
    }
    paths.set(handle, String(path))
    return handle
  }
  for (const name of ['rmSync', 'mkdirSync', 'writeFileSync', 'readFileSync', 'unlinkSync', 'statSync', 'existsSync']) {
    const real = fs[name]
    fs[name] = function (path, ...rest) {
      const error = due(name, path)
      if (error !== undefined) throw error
      return real.call(this, path, ...rest)
    }
  }
  if (count !== undefined)
    process.on('exit', () => {
      fs.appendFileSync(count, `${seen}\n`)
    })
}
